"""Followers in trouble: a database that goes and comes back, many of them, slow ones."""

import asyncio
import signal
import time
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import httpx
import pytest

from hybridjobs.client import Client, JobEvent, Missed
from hybridjobs.ingress import live
from hybridjobs.store.database import connect
from hybridjobs.store.embedded import EmbeddedPostgres
from hybridjobs.store.migrate import migrate
from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.ingress.conftest import TOKEN, Running, running
from tests.integration.ingress.outcomes import end_all
from tests.integration.ingress.test_events import LONG, Stream, followed, position_of
from tests.waiting import eventually


@pytest.fixture
async def api(ingress: Running) -> Running:
    await ingress.register(job_type())
    return ingress


async def _submitted(api: Running) -> UUID:
    """A new job, as soon as the database takes one."""
    for _ in range(200):
        answer = await api.submit("test/long")
        if answer.status_code != 503:
            return UUID(answer.json()["id"])
        await asyncio.sleep(0.1)
    pytest.fail("the database takes nothing")


async def _collect(stream: Stream, seen: list[tuple[str, Any]]) -> None:
    while event := await stream.next():
        seen.append(event)


async def _collect_all(client: Client, seen: list[JobEvent | Missed], after: str) -> None:
    async for event in client.follow_all(after=after):
        seen.append(event)  # noqa: PERF401 - it is read meanwhile


def _completed(seen: list[tuple[str, Any]]) -> set[str]:
    return {job["id"] for _, job in seen if job["status"] == "completed"}


@pytest.mark.timeout(120)
async def test_who_stays_through_a_restart_of_postgres_sees_each_change_once(
    durable_postgres: EmbeddedPostgres,
) -> None:
    await migrate(durable_postgres.url, logins={})
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(running(durable_postgres.url, inline_children=0))
        await api.register(job_type())
        first = await _submitted(api)
        of_all = await stack.enter_async_context(followed(api))
        position = await of_all.position()
        of_job = await stack.enter_async_context(followed(api, f"/api/jobs/{first}/events"))
        batch = (await api.api.post("/api/jobs:batch", json={"jobs": [LONG] * 2})).json()
        waiting = asyncio.create_task(api.api.get(batch["url"], params={"wait": 60}))
        seen: list[tuple[str, Any]] = []
        seen_of_job: list[tuple[str, Any]] = []
        following = asyncio.create_task(_collect(of_all, seen))
        following_job = asyncio.create_task(_collect(of_job, seen_of_job))
        await eventually(lambda: len(seen) == 2)
        await asyncio.to_thread(durable_postgres.stop)
        await asyncio.sleep(2.5)
        assert not following.done()
        assert not following_job.done()
        await asyncio.to_thread(durable_postgres.start)
        await _submitted(api)
        await eventually(lambda: len(seen) == 3)
        ended = {str(job_id) for job_id in await end_all(api)}
        await eventually(lambda: _completed(seen) == ended)
        await following_job
        assert _completed(seen_of_job) == {str(first)}
        assert (await waiting).json()["finished"]
        told = [(name, job["id"], job["status"], job["attempt"]) for name, job in seen]
        assert len(set(told)) == len(told)
        assert {name for name, *_ in told} == {"job"}
        following.cancel()
        # Who comes back only now, from before, gets all that has changed.
        again = await stack.enter_async_context(followed(api, after=position))
        assert {(await again.job())["id"] for _ in ended} == ended


@pytest.mark.timeout(120)
async def test_who_stays_through_a_crash_of_postgres_is_told_that_there_may_be_more(
    durable_postgres: EmbeddedPostgres,
) -> None:
    await migrate(durable_postgres.url, logins={})
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(running(durable_postgres.url, inline_children=0))
        await api.register(job_type())
        client = await stack.enter_async_context(Client(f"http://127.0.0.1:{api.ports.api}", TOKEN))
        seen: list[JobEvent | Missed] = []
        following = asyncio.create_task(_collect_all(client, seen, await position_of(api)))
        first = await _submitted(api)
        waiting = asyncio.create_task(client.wait(first))
        await eventually(lambda: len(seen) == 1)
        position = seen[0].position
        await asyncio.to_thread(durable_postgres.stop, signal.SIGKILL)
        await asyncio.sleep(2.5)
        await asyncio.to_thread(durable_postgres.start)
        second = await _submitted(api)
        await eventually(lambda: any(isinstance(event, Missed) for event in seen))
        await end_all(api)
        assert (await waiting).status.is_terminal

        def over() -> set[UUID]:
            told = (event for event in seen if isinstance(event, JobEvent))
            return {event.id for event in told if event.status.is_terminal}

        await eventually(lambda: over() == {first, second})
        following.cancel()
        assert isinstance(await anext(client.follow_all(after=position)), Missed)


async def test_five_hundred_at_once_are_served_and_others_with_them(
    database_urls: DatabaseUrls,
) -> None:
    limits = httpx.Limits(max_connections=None)
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(
            running(database_urls.service, inline_children=0, api_requests_per_second=0)
        )
        await api.register(job_type())
        job_id = await _submitted(api)
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=api.api.base_url, headers=api.api.headers, limits=limits, timeout=30
            )
        )

        async def follow(path: str) -> Stream | None:
            response = await stack.enter_async_context(client.stream("GET", path))
            return Stream(response) if response.status_code == 200 else None

        of_all = ["/api/events"] * (live.MAX_FEEDS + 10)
        of_job = [f"/api/jobs/{job_id}/events"] * 400
        asked = [asyncio.create_task(follow(path)) for path in of_all + of_job]
        streams = await asyncio.gather(*asked)
        feeds = [stream for stream in streams[: len(of_all)] if stream is not None]
        watches = [stream for stream in streams[len(of_all) :] if stream is not None]
        assert (len(feeds), len(watches)) == (live.MAX_FEEDS, 400)
        await asyncio.gather(*(stream.position() for stream in feeds))
        await asyncio.gather(*(stream.job() for stream in watches))
        began = time.monotonic()
        await end_all(api)
        found = await asyncio.gather(*(_last(stream) for stream in feeds + watches))
        took = time.monotonic() - began
        assert {job["status"] for job in found} == {"completed"}
        assert took < 15


async def _last(stream: Stream) -> Any:
    while (job := await stream.job())["status"] != "completed":
        pass
    return job


async def test_a_look_that_hangs_holds_up_no_new_follower(
    api: Running, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_LOOK_SECONDS", 0.5)
    async with followed(api) as first, await connect(database_url) as locking:
        await first.position()
        async with locking.transaction():
            await locking.execute("LOCK TABLE hybridjobs.background_jobs")
            await asyncio.sleep(2 * live.PERIOD_SECONDS)
            async with followed(api) as second:
                await second.position()
        job_id = str(await _submitted(api))
        assert (await first.job())["id"] == job_id
