import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs.handlers.github.client.errors import (
    Answer,
    ForbiddenError,
    Limited,
    NotFoundError,
    TransientError,
)
from hybridjobs.handlers.github.client.graphql import (
    PageSize,
    Problem,
    nodes,
    read,
    with_rate_limit,
)
from hybridjobs.sdk import PermanentError

COST = {"cost": 3, "limit": 5000, "remaining": 4997, "resetAt": "2026-01-01T00:00:00Z"}
WENT_WRONG = (
    "Something went wrong while executing your query. This may be the result of a timeout, or it "
    "could be a GitHub bug. Please include `0400:1234` when reporting this issue."
)
NODE_LIMIT = (
    "This query requests up to 1,010,000 possible nodes which exceeds the maximum limit of 500,000."
)


def answer(body: Any, status: int = 200, **headers: str) -> Answer:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return Answer(status, headers, content)


def error(type_: str | None, message: str = "m", **more: Any) -> dict[str, Any]:
    return {"message": message, **({"type": type_} if type_ else {}), **more}


def test_data_and_its_cost_are_told_apart() -> None:
    found = read(answer({"data": {"repository": {"id": "R_1"}, "rateLimit": COST}}))
    assert (found.data, found.cost, found.problems) == ({"repository": {"id": "R_1"}}, 3, ())


@pytest.mark.parametrize("kind", ["NOT_FOUND", "FORBIDDEN"])
def test_a_part_that_is_absent_leaves_the_rest(kind: str) -> None:
    path = ["repository", "pullRequest"]
    body = {
        "data": {"repository": {"pullRequest": None}, "rateLimit": COST},
        "errors": [
            error(kind, "Could not resolve to a PullRequest with the number of 9", path=path)
        ],
    }
    (problem,) = read(answer(body)).problems
    assert problem == Problem(kind, tuple(path), body["errors"][0]["message"])  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "expected"), [("NOT_FOUND", NotFoundError), ("FORBIDDEN", ForbiddenError)]
)
@pytest.mark.parametrize("data", [None, {"repository": None, "rateLimit": COST}])
def test_nothing_but_absence_is_a_refusal(
    kind: str, expected: type[Exception], data: dict[str, Any] | None
) -> None:
    text = "Could not resolve to a Repository with the name 'a/b'."
    with pytest.raises(expected, match="Could not resolve"):
        read(answer({"data": data, "errors": [error(kind, text, path=["repository"])]}))


@pytest.mark.parametrize(
    "body",
    [
        {"data": None, "errors": [error("RATE_LIMITED", "API rate limit exceeded for user ID 1.")]},
        {"errors": [error("RATE_LIMIT", "API rate limit already exceeded for user ID 1.")]},
        {"message": "You have exceeded a secondary rate limit."},
        {"errors": [error(None, "You have exceeded a secondary rate limit.")]},
    ],
)
def test_limits_are_told_in_several_ways(body: Any) -> None:
    with pytest.raises(Limited) as raised:
        read(answer(body))
    assert raised.value.secondary is ("secondary" in str(raised.value))


@pytest.mark.parametrize(
    "found",
    [
        answer({"data": None, "errors": [error(None, WENT_WRONG)]}),
        answer(
            {"data": {"a": 1, "rateLimit": COST}, "errors": [error(None, WENT_WRONG, path=["b"])]}
        ),
        answer({"data": None, "errors": [error("MAX_NODE_LIMIT_EXCEEDED", NODE_LIMIT)]}),
        answer({"data": {"a": None}, "errors": [error("RESOURCE_LIMITS_EXCEEDED", path=["a"])]}),
        answer("<html>502 Bad Gateway</html>", 502),
        answer({"message": "We couldn't respond to your request in time."}, 504),
        answer({"data": None, "errors": [error(None, WENT_WRONG)]}, 502),
    ],
)
def test_what_takes_too_long_may_be_asked_for_in_smaller_parts(found: Answer) -> None:
    with pytest.raises(TransientError) as raised:
        read(found)
    assert raised.value.timed_out


@pytest.mark.parametrize(
    "failure",
    [
        error(None, 'Parse error on "}" (RCURLY) at [1, 2]', locations=[{"line": 1, "column": 2}]),
        error(
            None,
            "Field 'nope' doesn't exist on type 'Repository'",
            path=["query", "repository", "nope"],
            extensions={"code": "undefinedField", "typeName": "Repository"},
        ),
    ],
)
def test_a_query_that_github_cannot_take_is_permanent(failure: dict[str, Any]) -> None:
    with pytest.raises(PermanentError, match="GitHub refuses the query"):
        read(answer({"errors": [failure]}))


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "nonsense",
        "null",
        {},
        {"data": None},
        {"data": []},
        {"errors": "x"},
        {"errors": [1]},
        {"data": {"a": 1}},
        {"data": {"a": 1, "rateLimit": {"cost": "x"}}},
        {"data": {"a": 1, "rateLimit": COST}, "errors": [error("INTERNAL", path=["b"])]},
    ],
)
def test_an_answer_of_the_wrong_form_is_transient(body: Any) -> None:
    with pytest.raises(TransientError, match="GraphQL"):
        read(answer(body))


def test_a_document_asks_for_its_cost() -> None:
    document = "query Pulls($owner: String!) {\n  viewer { login }\n}\nfragment F on User { id }"
    asked = with_rate_limit(document)
    assert asked.count("rateLimit { cost limit remaining resetAt }") == 1
    assert asked.startswith("query Pulls($owner: String!) { rateLimit {")
    with pytest.raises(ValueError, match="begins with its query"):
        with_rate_limit("fragment F on User { id } query { viewer { ...F } }")


def test_hidden_nodes_are_left_out() -> None:
    assert nodes({"nodes": [None, {"id": 1}, None]}) == [{"id": 1}]
    assert nodes({"nodes": None}) == nodes(None) == []


def test_a_page_shrinks_by_half_and_grows_by_a_quarter() -> None:
    size = PageSize(40)
    assert size.shrink()
    values = []
    for _ in range(6):
        size.succeeded(1)
        values.append(size.value)
    assert values == [20, 25, 25, 31, 31, 38]


def test_a_page_that_costs_too_much_shrinks() -> None:
    size = PageSize(40, max_cost=10)
    size.succeeded(11)
    assert size.value == 20


@given(st.integers(-5, 500), st.lists(st.sampled_from(["shrink", "success", "costly"])))
def test_a_page_stays_within_its_bounds(start: int, events: list[str]) -> None:
    size = PageSize(start, maximum=80)
    for event in events:
        if event == "shrink":
            before = size.value
            assert size.shrink() is (before > 1)
        else:
            size.succeeded(1 if event == "success" else 1000)
        assert 1 <= size.value <= 80
