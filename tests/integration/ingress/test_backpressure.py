"""What a listener bears: too many requests, connections and callers, in the test's process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count

import httpx
import pytest

from hybridjobs.ingress.asgi import Place
from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.ingress.conftest import SECRET, TOKEN, Running, refused_by_rate, running
from tests.integration.ingress.test_protocol import HEAD, connected, status_of
from tests.recorded import Delivery, signed_headers
from tests.waiting import eventually

IDS = count()


@pytest.fixture
async def narrow(database_urls: DatabaseUrls) -> AsyncIterator[Running]:
    async with running(
        database_urls.service,
        inline_children=0,
        max_requests_in_flight=2,
        max_connections=20,
        body_timeout_seconds=5,
        webhook_requests_per_second=1,
    ) as ingress:
        yield ingress


async def deliver(ingress: Running, secret: str = SECRET) -> httpx.Response:
    body = b'{"action":"opened"}'
    headers = signed_headers(secret, Delivery("pull_request", body, 0), delivery_id=f"{next(IDS)}")
    return await ingress.webhooks.post("/webhooks/github", content=body, headers=headers)


async def test_more_requests_than_can_be_worked_on_are_told_to_come_again(
    narrow: Running, database_url: str
) -> None:
    await narrow.register(job_type())
    async with AsyncExitStack() as stack:
        # They wait for the table, and so does the listing.
        connection = await stack.enter_async_context(narrow.database.transaction())
        await connection.execute("LOCK TABLE hybridjobs.background_jobs IN ACCESS EXCLUSIVE MODE")
        waiting = [asyncio.create_task(narrow.api.get("/api/jobs")) for _ in range(2)]
        await asyncio.sleep(0.5)
        refused = await narrow.api.get("/api/jobs")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["detail"] == "too many requests at once"
        # Other listeners have places of their own.
        assert (await narrow.webhooks.get("/")).status_code == 404
        assert (await narrow.health.get("/readyz")).status_code == 200
    assert [(await each).status_code for each in waiting] == [200, 200]
    assert (await narrow.api.get("/api/jobs")).status_code == 200


async def test_bodies_on_their_way_take_no_place(narrow: Running) -> None:
    async with AsyncExitStack() as stack:
        for sent in (b"", b"", b"{", b"{", b'{"action":'):
            _, writer = await stack.enter_async_context(connected(narrow.ports.webhooks))
            writer.write(HEAD + b"Content-Length: 1000\r\n\r\n" + sent)
            await writer.drain()
        await asyncio.sleep(0.2)
        assert (await deliver(narrow)).status_code == 204


async def test_who_waits_for_a_batch_takes_no_place(narrow: Running) -> None:
    await narrow.register(job_type())
    made = await narrow.api.post(
        "/api/jobs:batch", content='{"jobs":[{"type":"test/long","payload":1}]}'
    )
    url = made.json()["url"]
    waiting = [asyncio.create_task(narrow.api.get(url, params={"wait": "3"})) for _ in range(5)]
    await asyncio.sleep(0.3)
    assert (await narrow.api.get("/api/jobs")).status_code == 200
    for each in waiting:
        assert (await each).status_code in (200, 503)


async def test_who_waits_for_a_job_takes_no_place(
    narrow: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await narrow.register(job_type())
    leave, left = Place.leave, set[Place]()

    def noted(place: Place) -> None:
        leave(place)
        left.add(place)

    monkeypatch.setattr(Place, "leave", noted)
    body = '{"type":"test/long","payload":1}'
    asked = [("/api/jobs", body), ("/api/process-job", "{}")]
    waiting = []
    for path, content in 3 * asked:
        request = narrow.api.post(path, content=content, headers={"Prefer": "wait=5"})
        waiting.append(asyncio.create_task(request))
        await eventually(lambda: len(left) == len(waiting))
    assert (await narrow.api.get("/api/jobs")).status_code == 200
    # What they started is told also where there is no place to look at it again.
    answers = [await each for each in waiting]
    assert {each.status_code for each in answers} == {202}
    assert {each.headers["preference-applied"] for each in answers} == {"wait=5"}


async def test_who_follows_jobs_takes_no_place(narrow: Running) -> None:
    await narrow.register(job_type())
    job_id = (await narrow.submit("test/long")).json()["id"]
    async with AsyncExitStack() as stack:
        for path in 3 * ("/api/events", f"/api/jobs/{job_id}/events"):
            stream = await stack.enter_async_context(narrow.api.stream("GET", path))
            assert stream.status_code == 200
        assert (await narrow.api.get("/api/jobs")).status_code == 200
    assert (await narrow.api.get("/api/jobs")).status_code == 200


async def test_a_source_has_its_rate_and_what_is_unsigned_spends_none(narrow: Running) -> None:
    for _ in range(5):
        assert (await deliver(narrow, "wrong-secret")).status_code == 401
    refused = await refused_by_rate(lambda: deliver(narrow))
    assert refused.json()["title"] == "Too Many Requests"
    await asyncio.sleep(1.1)
    assert (await deliver(narrow)).status_code == 204


async def test_without_a_rate_there_is_no_limit(database_urls: DatabaseUrls) -> None:
    async with running(
        database_urls.service, inline_children=0, webhook_requests_per_second=0
    ) as ingress:
        assert {(await deliver(ingress)).status_code for _ in range(50)} == {204}


async def test_the_connection_that_waited_longest_makes_room(narrow: Running) -> None:
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(connected(narrow.ports.api)) for _ in range(20)]
        held[0][1].write(b"GET /api/none HTTP/1.1\r\n")
        await asyncio.sleep(0.1)
        reader, writer = await stack.enter_async_context(connected(narrow.ports.api))
        authorization = b"Authorization: Bearer " + TOKEN.encode()
        writer.write(b"GET /api/none HTTP/1.1\r\nHost: x\r\n" + authorization + b"\r\n\r\n")
        assert await status_of(reader) == 404
        # It had begun a request, and is told.
        assert await status_of(held[0][0]) == 503
        assert b"retry-after: 1" in await held[0][0].read()
        for other, _ in held[1:]:
            assert not other.at_eof()


async def test_a_connection_at_work_is_never_given_up(narrow: Running) -> None:
    await narrow.register(job_type())
    made = await narrow.api.post(
        "/api/jobs:batch", content='{"jobs":[{"type":"test/long","payload":1}]}'
    )
    working = asyncio.create_task(narrow.api.get(made.json()["url"], params={"wait": "2"}))
    await asyncio.sleep(0.3)
    async with AsyncExitStack() as stack:
        for _ in range(60):
            await stack.enter_async_context(connected(narrow.ports.api))
        assert (await working).status_code == 200


async def test_a_connection_that_stays_idle_is_closed(database_urls: DatabaseUrls) -> None:
    async with (
        running(database_urls.service, inline_children=0, keep_alive_seconds=0.5) as ingress,
        connected(ingress.ports.webhooks) as (reader, writer),
    ):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await status_of(reader) == 404
        async with asyncio.timeout(20):
            await reader.read()


@pytest.mark.parametrize("headers", [101, 5000])
async def test_too_many_headers_are_refused(narrow: Running, headers: int) -> None:
    async with connected(narrow.ports.webhooks) as (reader, writer):
        writer.write(HEAD + b"a:b\r\n" * headers + b"\r\n")
        assert await status_of(reader) == 431


async def test_a_head_that_comes_at_once_has_the_same_limit(narrow: Running) -> None:
    async with connected(narrow.ports.webhooks) as (reader, writer):
        writer.write(HEAD + b"x-long: " + b"x" * 33_000 + b"\r\n\r\n")
        assert await status_of(reader) == 431
