"""GitHub's published schema, as the data file has it."""

from functools import cache

from graphql import GraphQLSchema, build_schema


@cache
def schema_of(text: str) -> GraphQLSchema:
    """Built once in a process, at the first query: it takes about two seconds."""
    return build_schema(text, assume_valid=True, no_location=True)
