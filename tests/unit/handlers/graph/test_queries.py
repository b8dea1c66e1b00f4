"""Every document against GitHub's published schema."""

from functools import cache

import pytest
from graphql import GraphQLSchema, build_schema, parse, validate

from hybridjobs.handlers.github.client.graphql import with_rate_limit
from hybridjobs.handlers.github.graph import queries
from tests.recorded.paths import GRAPHQL_SCHEMA, require

DOCUMENTS = {
    "pull requests": queries.PULL_REQUESTS,
    "more": queries.MORE,
    "thread": queries.THREAD,
    "one": queries.details(1),
    "a hundred": queries.details(100),
}


@cache
def schema() -> GraphQLSchema:
    return build_schema(require(GRAPHQL_SCHEMA).read_text(), assume_valid=True, no_location=True)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_it_is_valid(name: str) -> None:
    assert validate(schema(), parse(with_rate_limit(DOCUMENTS[name]))) == []


def test_what_is_invalid_is_found() -> None:
    document = queries.PULL_REQUESTS.replace("totalCount", "rateLimit { cost }", 1)
    assert validate(schema(), parse(document))
