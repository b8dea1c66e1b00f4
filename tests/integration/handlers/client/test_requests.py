"""Tokens, lists, conditional requests and GraphQL, on a real server."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hybridjobs.handlers.github.client import (
    ForbiddenError,
    NotFoundError,
    PageSize,
    TransientError,
    cached,
)
from hybridjobs.handlers.github.client.turns import Turns
from hybridjobs.sdk import PermanentError, RetryLater
from tests.integration.handlers.client.conftest import Open, Stage, digest
from tests.integration.handlers.conftest import Query
from tests.recorded.server import Fault, GitHub, GitHubError
from tests.recorded.server.apps import signed_by

HERE = ("Codertocat", "Hello-World")
LARGE = ("octo-org", "large")
DOCUMENT = "query($owner: String!, $name: String!, $first: Int!) { repository { id } }"
COST = {"cost": 2, "limit": 5000, "remaining": 4000, "resetAt": "2099-01-01T00:00:00Z"}
NEXT = '<http://x/?page=2>; rel="next"'
DATA = {"data": {"repository": {"id": "R_1"}, "rateLimit": COST}}


def shown_to(*tokens: str, status: int = 404) -> Any:
    """An answer to these tokens, and a refusal to others."""

    def answer(request: Request, body: Any) -> Response:
        if request.headers["authorization"].removeprefix("Bearer ") not in tokens:
            raise GitHubError(status, "Not Found" if status == 404 else "no")
        return JSONResponse([] if request.url.path.endswith("/issues") else {"login": "x"})

    return answer


async def only(pages: Any) -> list[Any]:
    return [page async for page in pages]


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_what_one_token_may_not_see_another_is_asked_for(
    stage: Stage, client: Open, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "blind,seeing")
    stage.answer = shown_to("seeing", status=status)
    async with client() as api:
        await only(api.issues("octo-org", "private"))
        await only(api.issues("octo-org", "private"))
    assert stage.tokens == ["blind", "seeing", "seeing"]


@pytest.mark.parametrize(("status", "kind"), [(404, NotFoundError), (403, ForbiddenError)])
async def test_what_no_token_may_see_is_permanent(
    stage: Stage,
    client: Open,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    kind: type[Exception],
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "one,two")
    stage.answer = shown_to(status=status)
    async with client() as api:
        with pytest.raises(kind):
            await api.user("x")
    assert sorted(stage.tokens) == ["one", "two"]


async def test_without_a_token_requests_have_none(
    stage: Stage, client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_TOKEN")
    stage.answer = lambda request, body: JSONResponse({"login": "x"})
    async with client() as api:
        await api.user("x")
    assert stage.tokens == [""]


# Conditional requests


async def test_what_has_not_changed_is_not_sent_again(
    github: GitHub, client: Open, query: Query
) -> None:
    github.large("octo-org/large", 150, step_seconds=1)
    for _ in range(2):
        async with client() as api:
            first = await api.repository(*HERE)
            pages = await only(api.pull_requests(*LARGE))
    assert [each["status"] for each in github.requests] == [200, 200, 200, 304, 304, 200]
    assert first["full_name"] == "Codertocat/Hello-World"
    assert [len(page.items) for page in pages] == [100, 50]
    assert [page.unchanged for page in pages] == [True, False]
    github.change("Codertocat/Hello-World", None, {"description": "new"})
    async with client() as api:
        assert (await api.repository(*HERE))["description"] == "new"
        assert (await api.repository(*HERE))["description"] == "new"
    assert [each["status"] for each in github.requests[-2:]] == [200, 304]


async def test_a_full_page_that_has_not_changed_may_have_got_a_second(
    stage: Stage, client: Open
) -> None:
    items, asked = [{"number": number} for number in range(105)], []

    def answer(request: Request, body: Any) -> Response:
        number = int(request.query_params.get("page", 1))
        asked.append((number, request.query_params["state"], request.query_params["per_page"]))
        if request.headers.get("if-none-match") == '"1"':
            return Response(status_code=304, headers={"etag": '"1"'})
        # While there were a hundred, the page was the last one, and had no Link.
        return JSONResponse(items[(number - 1) * 100 : number * 100], headers={"etag": '"1"'})

    stage.answer = answer
    for lengths in ([100], [100, 5]):
        asked.clear()
        async with client() as api:
            pages = [page async for page in api.issues(*LARGE)]
        assert [len(page.items) for page in pages] == lengths
    assert asked == [(1, "all", "100"), (2, "all", "100")]
    assert [page.unchanged for page in pages] == [True, False]


async def test_an_answer_is_kept_for_its_token_alone(
    stage: Stage, github: GitHub, client: Open, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions = []

    def answer(request: Request, body: Any) -> Response:
        conditions.append(request.headers.get("if-none-match"))
        return JSONResponse({"login": "x"}, headers={"etag": '"1"'})

    stage.answer = answer
    for token in ("one", "two", "one"):
        monkeypatch.setenv("GITHUB_TOKEN", token)
        async with client() as api:
            await api.user("x")
    assert conditions == [None, None, '"1"']
    scopes = await query("SELECT scope FROM github.responses ORDER BY scope")
    assert [row["scope"] for row in scopes] == sorted([digest("one"), digest("two")])


async def test_a_token_whose_answer_is_kept_goes_first(
    stage: Stage, client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.answer = lambda request, body: JSONResponse({"login": "x"}, headers={"etag": '"1"'})
    monkeypatch.setenv("GITHUB_TOKEN", "second")
    async with client() as api:
        await api.user("x")
    monkeypatch.setenv("GITHUB_TOKEN", "first,second")
    async with client() as api:
        await api.user("x")
        await api.user("y")
    assert stage.tokens == ["second", "second", "first"]


async def test_what_is_kept_is_bounded(
    github: GitHub,
    client: Open,
    connection: Any,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = "SELECT url FROM github.responses ORDER BY used_at"
    async with client() as api:
        await api.repository(*HERE)
        monkeypatch.setattr(cached, "MAX_BODY_BYTES", 100)
        github.change("Codertocat/Hello-World", None, {"description": "new"})
        await api.repository(*HERE)
    assert await query(rows) == []  # too large, and what was there is old
    await query(
        "INSERT INTO github.responses (scope, url, headers, body, used_at) SELECT 'x', n::text,"
        " '{}', '', now() - n * interval '1 day' FROM generate_series(1, 9) n RETURNING 1"
    )
    responses = cached.Responses(Turns(connection))
    await responses.prune()
    assert [row["url"] for row in await query(rows)] == ["6", "5", "4", "3", "2", "1"]
    monkeypatch.setattr(cached, "MAX_ROWS", 2)
    await responses.prune()
    assert [row["url"] for row in await query(rows)] == ["2", "1"]


async def test_what_is_kept_is_pruned_as_answers_come(
    stage: Stage, client: Open, query: Query
) -> None:
    await query(
        "INSERT INTO github.responses (scope, url, headers, body, used_at)"
        " VALUES ('x', 'old', '{}', '', now() - interval '8 days') RETURNING 1"
    )
    stage.answer = lambda request, body: JSONResponse({"login": "x"}, headers={"etag": '"1"'})
    async with client() as api:
        for number in range(64):
            await api.user(f"user-{number}")
    assert await query("SELECT FROM github.responses WHERE url = 'old'") == []


# Lists


async def test_a_list_ends_where_the_rest_is_older(github: GitHub, client: Open) -> None:
    github.large("octo-org/large", 1000, step_seconds=60)
    since = datetime.now(UTC) - timedelta(minutes=250)
    async with client() as api:
        pages = await only(api.pull_requests(*LARGE, since=since))
        assert [len(page.items) for page in pages] == [100, 100, 100]
        assert pages[-1].next is not None
        rest = await only(api.pull_requests(*LARGE, cursor=pages[1].next))
    numbers = [item["number"] for page in pages[:2] + rest for item in page.items]
    assert numbers == list(range(1000, 0, -1))
    assert rest[-1].next is None
    assert len(github.requests) == 3 + 8


async def test_an_empty_repository_has_empty_lists(stage: Stage, client: Open) -> None:
    stage.answer = lambda request, body: Response(status_code=204)
    async with client() as api:
        (page,) = await only(api.contributors(*HERE))
        assert (page.items, page.next) == ([], None)
        assert await api.commit_activity(*HERE) == []


async def test_statistics_are_waited_for(stage: Stage, client: Open) -> None:
    stage.answer = lambda request, body: JSONResponse({}, 202)
    async with client() as api:
        with pytest.raises(RetryLater, match="is counting for") as raised:
            await api.commit_activity(*HERE)
    assert raised.value.after_seconds == 10


@pytest.mark.parametrize("content", ["", "<html>", "{}", "[1]", "null", '[{"id": 1}'])
async def test_a_malformed_list_is_transient(stage: Stage, client: Open, content: str) -> None:
    stage.answer = lambda request, body: Response(content)
    async with client() as api:
        with pytest.raises(TransientError, match="GitHub's answer for /repos/Codertocat/Hello-W"):
            await only(api.issues(*HERE))


async def test_an_item_without_time_ends_no_list_silently(github: GitHub, client: Open) -> None:
    github.faults.append(Fault(status=200, body=[{"id": 1}], headers={"link": NEXT}))
    async with client() as api:
        with pytest.raises(TransientError, match="without time"):
            await only(api.pull_requests(*HERE, since=datetime.now(UTC)))


# GitHub Apps


class App:
    """An App's side of GitHub: installed at octo-org, its tokens good for an hour."""

    def __init__(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
        self.is_signed = signed_by("7", key.public_key())
        self.made = 0
        self.good_seconds = 3600

    def answer(self, request: Request, body: Any) -> Response:
        token = request.headers["authorization"].removeprefix("Bearer ")
        path = request.url.path
        if path.endswith(("/installation", "/access_tokens")):
            if not self.is_signed(token):
                raise GitHubError(401, "A JSON web token could not be decoded")
            if path.startswith("/repos/") and "/octo-org/" not in path.lower():
                raise GitHubError(404, "Not Found")
            if path.endswith("/installation"):
                return JSONResponse({"id": 42})
            self.made += 1
            expires = datetime.fromtimestamp(time.time() + self.good_seconds, UTC)
            made = {"token": f"installed_{self.made}", "expires_at": expires.isoformat()}
            return JSONResponse(made, 201)
        if token not in (f"installed_{self.made}", "token"):
            raise GitHubError(401, "Bad credentials")
        return JSONResponse([])


@pytest.fixture
def app(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> App:
    app = App()
    stage.answer = app.answer
    monkeypatch.delenv("GITHUB_TOKEN")
    monkeypatch.setenv("GITHUB_APP_ID", "7")
    monkeypatch.setenv("GITHUB_APP_PRIVATE_KEY", app.pem)
    return app


async def test_an_installations_token_is_made_once_for_all_jobs(
    app: App, stage: Stage, client: Open, query: Query
) -> None:
    for owner in ("octo-org", "Octo-Org", "octo-org"):
        async with client() as api:
            await only(api.issues(owner, "shop"))
    assert app.made == 1
    assert [each for each in stage.tokens if each.startswith("installed_")] == ["installed_1"] * 3
    (row,) = await query("SELECT * FROM github.installation_tokens")
    assert b"installed_1" not in row["sealed"]
    (limit,) = await query("SELECT token_sha256 FROM github.rate_limits")
    assert limit["token_sha256"] == digest("app 7 installation 42")


async def test_a_token_that_will_soon_expire_is_replaced(app: App, client: Open) -> None:
    app.good_seconds = 200
    for _ in range(2):
        async with client() as api:
            await only(api.issues("octo-org", "shop"))
    assert app.made == 2


async def test_a_token_that_is_refused_is_not_kept(
    app: App, client: Open, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client() as api:
        await only(api.issues("octo-org", "shop"))
    app.made += 1  # what was made before is no longer good
    async with client() as api:
        with pytest.raises(ForbiddenError, match="Bad credentials"):
            await only(api.issues("octo-org", "shop"))
    async with client() as api:
        await only(api.issues("octo-org", "shop"))
    assert app.made == 3


async def test_where_the_app_is_not_installed_another_token_serves(
    app: App, stage: Stage, client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "token")
    async with client() as api:
        await only(api.issues("other-org", "shop"))
    assert stage.tokens[-1] == "token"
    assert app.made == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("GITHUB_APP_PRIVATE_KEY", "no key", "is no RSA key in PEM form"),
        ("GITHUB_APP_ID", "8", "JSON web token could not be decoded"),
    ],
)
async def test_an_app_set_up_wrongly_is_permanent(
    app: App, client: Open, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    async with client() as api:
        with pytest.raises(PermanentError, match=message):
            await only(api.issues("octo-org", "shop"))


# GraphQL


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
