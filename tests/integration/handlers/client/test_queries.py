"""GraphQL on a real server."""

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hybridjobs.handlers.github.client import (
    ForbiddenError,
    PageSize,
    TransientError,
)
from hybridjobs.sdk import PermanentError, RetryLater
from tests.integration.handlers.client.conftest import Open, Stage
from tests.integration.handlers.conftest import Query
from tests.recorded.server import Fault, GitHub, GitHubError

HERE = ("Codertocat", "Hello-World")
DOCUMENT = "query($owner: String!, $name: String!, $first: Int!) { repository { id } }"
COST = {"cost": 2, "limit": 5000, "remaining": 4000, "resetAt": "2099-01-01T00:00:00Z"}
DATA = {"data": {"repository": {"id": "R_1"}, "rateLimit": COST}}


async def test_a_query_tells_its_cost_and_the_limit(
    stage: Stage, client: Open, query: Query
) -> None:
    asked = []

    def answer(request: Request, body: Any) -> Response:
        asked.append(body)
        return JSONResponse(DATA)

    stage.answer = answer
    async with client() as api:
        found = await api.query(*HERE, DOCUMENT, {"owner": "a"}, size=PageSize(30))
    assert (found.data, found.cost) == ({"repository": {"id": "R_1"}}, 2)
    assert asked[0]["variables"] == {"owner": "a", "first": 30}
    assert "rateLimit { cost limit remaining resetAt }" in asked[0]["query"]
    rows = await query("SELECT remaining FROM github.rate_limits WHERE resource = 'graphql'")
    assert rows == [{"remaining": 4000}]


async def test_a_page_that_times_out_is_halved_until_it_does_not(
    stage: Stage, github: GitHub, client: Open
) -> None:
    sizes = []

    def answer(request: Request, body: Any) -> Response:
        sizes.append(body["variables"]["first"])
        if sizes[-1] > 25:
            raise GitHubError(502, "Server Error")
        return JSONResponse(DATA)

    stage.answer = answer
    size = PageSize(100)
    async with client() as api:
        for _ in range(3):
            await api.query(*HERE, DOCUMENT, {}, size=size)
    assert sizes == [100, 50, 25, 25, 31, 15]


async def test_one_502_that_comes_at_once_leaves_the_size(
    github: GitHub, stage: Stage, client: Open
) -> None:
    github.faults.append(Fault(status=502, path="/graphql"))
    stage.answer = lambda request, body: JSONResponse(DATA)
    size = PageSize(40)
    async with client(retries=3) as api:
        await api.query(*HERE, DOCUMENT, {}, size=size)
        assert size.value == 40
        github.faults.append(Fault(status=502, path="/graphql", times=2))
        await api.query(*HERE, DOCUMENT, {}, size=size)
        assert size.value == 20


async def test_what_cannot_be_made_smaller_is_transient(
    stage: Stage, github: GitHub, client: Open
) -> None:
    github.faults.append(Fault(status=504, times=100, path="/graphql"))
    size = PageSize(4)
    async with client() as api:
        with pytest.raises(TransientError, match="GitHub answers 504 for GraphQL"):
            await api.query(*HERE, DOCUMENT, {}, size=size)
    assert len(github.requests) == 3


async def test_other_trouble_leaves_the_size_and_is_repeated(
    stage: Stage, github: GitHub, client: Open
) -> None:
    stage.answer = lambda request, body: JSONResponse(DATA)
    github.faults.append(Fault(status=500, path="/graphql"))
    size = PageSize(40)
    async with client(retries=1) as api:
        await api.query(*HERE, DOCUMENT, {}, size=size)
    assert size.value == 40


async def test_too_many_nodes_are_permanent_where_no_size_is_to_be_had(
    stage: Stage, client: Open
) -> None:
    error = {"type": "MAX_NODE_LIMIT_EXCEEDED", "message": "more than 500,000 nodes"}
    stage.answer = lambda request, body: JSONResponse({"data": None, "errors": [error]})
    async with client() as api:
        with pytest.raises(PermanentError, match="500,000 nodes"):
            await api.query(*HERE, DOCUMENT, {})


async def test_a_limit_of_graphql_leaves_rest_alone(
    stage: Stage, github: GitHub, client: Open
) -> None:
    error = {"type": "RATE_LIMITED", "message": "API rate limit exceeded for user ID 1."}
    stage.answer = lambda request, body: JSONResponse({"errors": [error]})
    async with client() as api:
        with pytest.raises(RetryLater, match="API rate limit exceeded for user ID 1"):
            await api.query(*HERE, DOCUMENT, {})
        await api.repository(*HERE)


async def test_a_query_that_one_token_may_not_see_another_is_asked_for(
    stage: Stage, client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "blind,seeing")
    error = {"type": "NOT_FOUND", "path": ["repository"], "message": "Could not resolve"}
    hidden = {"data": {"repository": None, "rateLimit": COST}, "errors": [error]}

    def answer(request: Request, body: Any) -> Response:
        return JSONResponse(hidden if request.headers["authorization"] == "Bearer blind" else DATA)

    stage.answer = answer
    async with client() as api:
        await api.query(*HERE, DOCUMENT, {})
        await api.query(*HERE, DOCUMENT, {})
    assert stage.tokens == ["blind", "seeing", "seeing"]


async def test_a_query_without_any_token_is_not_asked(
    stage: Stage, client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "")
    async with client() as api:
        with pytest.raises(ForbiddenError, match="set GITHUB_TOKEN, or install the App"):
            await api.query(*HERE, DOCUMENT, {})
    assert stage.tokens == []
