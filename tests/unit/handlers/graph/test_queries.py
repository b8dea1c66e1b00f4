"""Every document against GitHub's published schema."""

from functools import cache
from typing import Any

import pytest
from graphql import GraphQLSchema, OperationDefinitionNode, build_schema, parse, validate
from graphql.execution.values import get_variable_values

from hybridjobs.handlers.github.client.costs import points
from hybridjobs.handlers.github.client.graphql import with_rate_limit
from hybridjobs.handlers.github.graph import queries
from tests.recorded.paths import GRAPHQL_SCHEMA, require
from tests.recorded.server.graph.costs import price

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


SEARCH = """query($query: String!) {
  found: search(query: $query, type: ISSUE, first: 1) { issueCount }
  repository(owner: "a {(", name: "b") { pullRequests { totalCount } }
}"""


@pytest.mark.parametrize("document", [*DOCUMENTS.values(), SEARCH], ids=[*DOCUMENTS, "search"])
@pytest.mark.parametrize("first", [1, 37, 100])
def test_its_cost_is_known_before(document: str, first: int) -> None:
    variables: dict[str, Any] = {
        "owner": "a", "name": "b", "first": first, "number": 1, "query": "q", "after": "c",
        "moreReviews": True, "moreComments": True, "moreThreads": True,
    }  # fmt: skip
    variables |= {f"n{place}": place for place in range(100)}
    parsed = parse(document)
    operation = next(
        each for each in parsed.definitions if isinstance(each, OperationDefinitionNode)
    )
    declared = operation.variable_definitions or ()
    values = get_variable_values(schema(), declared, variables)
    expected = price(schema(), parsed, operation, values)  # type: ignore[arg-type]
    assert points(document, variables) == expected.points
