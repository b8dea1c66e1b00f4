"""GraphQL, run against GitHub's published schema.

`schema` reads it, `costs` bounds and prices a query before it runs, `fields` answers each field
from the REST objects, `connections` pages, `endpoint` is POST /graphql.
"""

from .endpoint import graphql_endpoint

__all__ = ["graphql_endpoint"]
