"""Who may use the API, and for what: tokens of the table, over real sockets."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import httpx
import psycopg
import pytest
from starlette.routing import Router

from hybridjobs.errors import InvalidInput
from hybridjobs.ingress.api import api, routes
from hybridjobs.ingress.api.access import ApiRoute
from hybridjobs.model import ApiScope
from hybridjobs.store.tokens import (
    ApiToken,
    create_token,
    digest_of,
    find_token,
    list_tokens,
    revoke_token,
)
from tests.builders import job_type
from tests.conftest import DatabaseUrls, service_shut_out
from tests.integration.ingress.conftest import TOKEN, Running, refused_by_rate, running
from tests.waiting import eventually

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "http.md"
NO_ID = "0192e4a0-0000-7000-8000-000000000000"

Make = Callable[..., Awaitable[str]]


@pytest.fixture
def make(ingress: Running) -> Make:
    """Makes a token and returns its text."""

    async def make(scope: str, name: str = "ci", days: float | None = None) -> str:
        lifetime = None if days is None else timedelta(days=days)
        async with ingress.database.connection() as connection:
            _, text = await create_token(
                connection, name, ApiScope(scope), lifetime=lifetime, by="ana"
            )
        return text

    return make


async def get(ingress: Running, token: str, path: str = "/api/jobs") -> httpx.Response:
    return await ingress.api.get(path, headers={"Authorization": f"Bearer {token}"})


async def tokens(ingress: Running) -> list[ApiToken]:
    async with ingress.database.connection() as connection:
        return await list_tokens(connection, ended=True)


def all_routes() -> list[ApiRoute]:
    async def made() -> list[ApiRoute]:
        return routes(None)  # type: ignore[arg-type]  # none is served

    return asyncio.run(made())


NEEDED = {
    f"{method} {route.path}": needed
    for route in all_routes()
    for method, needed in route.needs.items()
}


async def test_every_request_is_for_its_scope_alone(ingress: Running, make: Make) -> None:
    await ingress.register(job_type())
    given = {scope: await make(scope) for scope in ApiScope}

    async def answer(request: str, authorization: str) -> tuple[int, httpx.Headers, str]:
        method, _, path = request.partition(" ")
        path = path.replace("{type:path}", "test/long").replace("{id}", NO_ID)
        headers = {"Authorization": authorization}
        # Of a stream the beginning is enough: it has no end.
        async with ingress.api.stream(method, path, headers=headers) as response:
            is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
            text = "" if is_stream else (await response.aread()).decode()
            return response.status_code, response.headers, text

    for request, needed in NEEDED.items():
        assert (await answer(request, ""))[0] == 401, request
        for scope, token in given.items():
            status, headers, text = await answer(request, f"Bearer {token}")
            if scope.includes(needed):
                assert status not in (401, 403, 405, 500), (request, text)
                continue
            assert status == 403, request
            assert json.loads(text)["detail"] == (
                f"the scope of token:ci is {scope}, and this needs {needed}"
            )
            assert headers["www-authenticate"] == (
                f'Bearer realm="hybridjobs", error="insufficient_scope", scope="{needed}"'
            )


def test_the_api_has_no_other_routes() -> None:
    async def made() -> Router:
        return api(None)  # type: ignore[arg-type]  # none is served

    served = asyncio.run(made()).routes
    assert all(type(route) is ApiRoute for route in served)
    answered = {
        f"{method} {route.path}"
        for route in served
        if isinstance(route, ApiRoute)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert answered == set(NEEDED)


def test_what_changes_nothing_is_read_and_all_else_is_more() -> None:
    for request, needed in NEEDED.items():
        assert request.startswith("GET ") == (needed is ApiScope.READ), request


def test_the_reference_names_the_scope_of_every_request() -> None:
    section = REFERENCE.read_text().partition("### Scopes")[2].partition("\n### ")[0]
    documented = dict(re.findall(r"^\| `([A-Z]+ [^`]+)` \| (\w+) \|$", section, re.MULTILINE))
    assert documented == {
        request.replace(":path}", "}"): needed.value for request, needed in NEEDED.items()
    }


async def test_strangers_learn_nothing_but_how_to_ask(ingress: Running) -> None:
    del ingress.api.headers["Authorization"]
    tried: list[str | bytes] = [
        "",
        "Bearer",
        "Basic YTpi",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer hj_" + 43 * "A",
        "Bearer hj_short",
        "Bearer a.b.c",
        "Bearer " + 20_000 * "x",
        b"Bearer \xff\xfe",
    ]
    for path in ("/api/jobs", "/api/none"):
        for header in (None, *tried):
            headers = {} if header is None else {b"Authorization": header}
            answer = await ingress.api.get(path, headers=headers)  # type: ignore[arg-type]
            assert answer.status_code == 401, header
            assert answer.headers["www-authenticate"].startswith('Bearer realm="hybridjobs"')
            assert answer.headers["content-type"] == "application/problem+json"


async def test_two_tokens_are_none(ingress: Running) -> None:
    headers = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")]
    request = httpx.Request("GET", f"{ingress.api.base_url}/api/jobs", headers=headers)
    answer = await ingress.api.send(request)
    assert answer.status_code == 401
    assert "more than one" in answer.json()["detail"]


async def test_the_bootstrap_token_may_do_everything(ingress: Running) -> None:
    await ingress.register(job_type())
    job = await ingress.job((await ingress.submit("test/long")).json()["id"])
    assert job.submitted_by == "bootstrap"
    assert (await ingress.api.post(f"/api/jobs/{job.id}/cancel")).status_code == 202
    # RFC 9110: the scheme's case does not matter.
    lower = await ingress.api.get("/api/jobs", headers={"Authorization": f"bearer {TOKEN}"})
    assert lower.status_code == 200


@pytest.mark.parametrize("token", [None, ""])
async def test_without_a_bootstrap_token_those_of_the_table_are_good(
    database_urls: DatabaseUrls, token: str | None
) -> None:
    async with running(database_urls.service, inline_children=0, api_token=token) as ingress:
        for wrong in ("x", TOKEN):
            assert (await get(ingress, wrong)).status_code == 401
        async with ingress.database.connection() as connection:
            _, text = await create_token(connection, "ci", ApiScope.READ, lifetime=None, by="ana")
        assert (await get(ingress, text)).status_code == 200


async def test_jobs_and_batches_say_who_submitted_them(ingress: Running, make: Make) -> None:
    await ingress.register(job_type())
    ingress.api.headers["Authorization"] = f"Bearer {await make('submit', name='billing')}"
    job = await ingress.job((await ingress.submit("test/long")).json()["id"])
    assert (job.source, job.submitted_by) == ("api", "token:billing")
    batch = await ingress.api.post(
        "/api/jobs:batch", content='{"jobs":[{"type":"test/long","payload":1}]}'
    )
    listed = await ingress.api.get("/api/jobs", params={"batch": batch.json()["id"]})
    [member] = listed.json()["jobs"]
    assert (await ingress.job(member["id"])).submitted_by == "token:billing"


async def test_who_pauses_is_the_caller_unless_they_say_for_whom(
    ingress: Running, make: Make
) -> None:
    ingress.api.headers["Authorization"] = f"Bearer {await make('operate')}"
    paused = await ingress.api.post("/api/queue/pause")
    assert paused.json()["queue"]["pausedBy"] == "token:ci"
    await ingress.api.post("/api/queue/resume")
    paused = await ingress.api.post("/api/queue/pause", content='{"by":"ana"}')
    assert paused.json()["queue"]["pausedBy"] == "ana"


async def test_a_revoked_token_ends_within_seconds(ingress: Running, make: Make) -> None:
    text = await make("read")
    assert (await get(ingress, text)).status_code == 200
    [token] = await tokens(ingress)
    async with ingress.database.connection() as connection:
        assert await revoke_token(connection, token.id, by="ben")
        assert not await revoke_token(connection, token.id, by="eve")
    [token] = await tokens(ingress)
    assert (token.revoked_by, token.revoked_at is not None) == ("ben", True)

    async def refusal() -> httpx.Response | None:
        answer = await get(ingress, text)
        return answer if answer.status_code == 401 else None

    assert "revoked" in (await eventually(refusal)).json()["detail"]


@pytest.mark.parametrize("of_one", [False, True])
@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_streams_end_with_their_token(
    ingress: Running, make: Make, how: str, of_one: bool
) -> None:
    await ingress.register(job_type())
    job_id = (await ingress.submit("test/long")).json()["id"]
    text = await make("read", days=6 / 86_400 if how == "expired" else None)
    path = f"/api/jobs/{job_id}/events" if of_one else "/api/events"
    request = ingress.api.stream("GET", path, headers={"Authorization": f"Bearer {text}"})
    async with asyncio.timeout(40), request as response:
        assert response.status_code == 200
        [token] = await tokens(ingress)
        if how == "revoked":
            async with ingress.database.connection() as connection:
                assert await revoke_token(connection, token.id, by="ben")
        async for _ in response.aiter_bytes():
            pass


async def test_a_token_expires_also_while_it_is_remembered(ingress: Running, make: Make) -> None:
    text = await make("read", days=4 / 86_400)  # less than it is remembered for
    assert (await get(ingress, text)).status_code == 200
    await asyncio.sleep(4.1)
    assert (await get(ingress, text)).status_code == 401


async def test_its_use_is_noted_now_and_then(
    ingress: Running, make: Make, database_url: str
) -> None:
    text = await make("read")
    [token] = await tokens(ingress)
    assert token.last_used_at is None
    for _ in range(3):
        await get(ingress, text)
    [token] = await tokens(ingress)
    first = token.last_used_at
    assert first is not None

    async def again() -> ApiToken:
        async with ingress.database.connection() as connection:
            await find_token(connection, digest_of(text))
        return (await tokens(ingress))[0]

    assert (await again()).last_used_at == first
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as owner:
        await owner.execute(
            "UPDATE hybridjobs.api_tokens SET last_used_at = now() - interval '6 minutes'"
        )
    noted = (await again()).last_used_at
    assert noted is not None
    assert noted > first


async def test_the_table_holds_no_token(ingress: Running, make: Make, database_url: str) -> None:
    text = await make("operate")
    async with await psycopg.AsyncConnection.connect(database_url) as owner:
        [row] = await (
            await owner.execute("SELECT t::text FROM hybridjobs.api_tokens t")
        ).fetchall()
    assert text[10:] not in row[0]
    [token] = await tokens(ingress)
    assert text.startswith(token.hint)
    assert len(token.hint) == 7


@pytest.mark.parametrize("role", ["hybridjobs_handlers", "hybridjobs_reader"])
async def test_only_the_service_sees_the_table(
    ingress: Running, database_url: str, role: str
) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as owner:
        await owner.execute(f"SET ROLE {role}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await owner.execute("SELECT digest FROM hybridjobs.api_tokens")


async def test_the_database_away_known_tokens_go_on_and_others_wait(
    ingress: Running, make: Make, database_url: str
) -> None:
    known, unknown = await make("read"), await make("read")
    assert (await get(ingress, known, "/api/none")).status_code == 404
    async with service_shut_out(database_url):
        await asyncio.sleep(5.1)
        assert (await get(ingress, known, "/api/none")).status_code == 404
        answer = await get(ingress, unknown, "/api/none")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        # The bootstrap token asks nobody.
        assert (await ingress.api.get("/api/none")).status_code == 404

    async def is_let_in() -> bool:
        return (await get(ingress, unknown, "/api/none")).status_code == 404

    await eventually(is_let_in)


async def test_a_flood_of_wrong_tokens_keeps_nobody_out(ingress: Running, make: Make) -> None:
    known = await make("read")
    assert (await get(ingress, known)).status_code == 200

    async def flood(number: int) -> int:
        return (await get(ingress, f"hj_{number:043}")).status_code

    flooding = asyncio.gather(*(flood(number) for number in range(400)))
    seen = {(await get(ingress, known)).status_code for _ in range(20)}
    assert seen == {200}
    assert set(await flooding) <= {401, 503}
    assert (await get(ingress, known)).status_code == 200


async def test_each_caller_has_a_rate_of_its_own(database_urls: DatabaseUrls) -> None:
    async with running(
        database_urls.service, inline_children=0, api_requests_per_second=1
    ) as ingress:
        async with ingress.database.connection() as connection:
            _, other = await create_token(
                connection, "other", ApiScope.READ, lifetime=None, by="ana"
            )
        refused = await refused_by_rate(lambda: ingress.api.get("/api/none"))
        assert "bootstrap" in refused.json()["detail"]
        assert (await get(ingress, other)).status_code == 200
        await asyncio.sleep(1.1)
        assert (await ingress.api.get("/api/none")).status_code == 404


async def test_a_name_that_could_be_another_ones_is_refused(ingress: Running) -> None:
    for name in ("", "-a", "a-", "A", "a b", "a:b", "a/b", 64 * "a", "é"):
        async with ingress.database.connection() as connection:
            with pytest.raises(InvalidInput, match="1 to 63"):
                await create_token(connection, name, ApiScope.READ, lifetime=None, by="ana")
    assert await tokens(ingress) == []


async def test_no_token_of_that_id(ingress: Running) -> None:
    async with ingress.database.connection() as connection:
        assert not await revoke_token(connection, UUID(NO_ID), by="ana")
