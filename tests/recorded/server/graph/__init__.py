"""GraphQL, run against GitHub's published schema.

`schema` reads it, `costs` bounds and prices a query before it runs, `roots` and `fields` answer
each field from the REST objects (`nodes`), `connections` pages, `endpoint` is POST /graphql.
"""

from .endpoint import graphql_endpoint

__all__ = ["graphql_endpoint"]
