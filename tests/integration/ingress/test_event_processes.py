"""Followers of ingresses that are processes: replicas of one database, and their ends."""

import asyncio
import signal
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import psycopg
from psycopg.rows import DictRow

from hybridjobs.client import Client, JobEvent
from hybridjobs.ingress.live import MAX_FEEDS
from hybridjobs.model import Status
from hybridjobs.store.database import connect
from hybridjobs.store.enqueue import insert_jobs
from tests.builders import new_job
from tests.conftest import DatabaseUrls
from tests.integration.cli.conftest import run
from tests.integration.ingress.conftest import TOKEN
from tests.integration.ingress.process import Process, started
from tests.integration.ingress.test_events import Stream
from tests.integration.ingress.test_process import types
from tests.waiting import eventually

__all__ = ["types"]


def _client(process: Process) -> Client:
    return Client(process.url("api"), TOKEN)


def _plain(process: Process) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.AsyncClient(
        base_url=process.url("api"), headers=headers, limits=limits, timeout=30
    )


async def test_what_changes_by_one_replica_is_seen_at_the_other(
    database_urls: DatabaseUrls, types: None
) -> None:
    async with (
        started(database_urls.service) as here,
        started(database_urls.service) as there,
        _client(here) as client,
        _client(there) as other,
    ):
        await here.ready()
        await there.ready()
        first = await client.submit("test/long", {})
        of_all: asyncio.Queue[JobEvent] = asyncio.Queue()
        of_job = other.follow(first)
        assert (await anext(of_job)).status is Status.QUEUED

        async def follow() -> None:
            async for event in other.follow_all(after=position):
                assert isinstance(event, JobEvent)
                of_all.put_nowait(event)

        async with _plain(there) as plain, plain.stream("GET", "/api/events") as response:
            position = await Stream(response).position()
        following = asyncio.create_task(follow())
        second = await client.submit("test/long", {})
        assert (await asyncio.wait_for(of_all.get(), 30)).id == second
        asked = time.monotonic()
        await client.cancel(first)
        assert (await asyncio.wait_for(anext(of_job), 30)).status is Status.CANCELLED
        event = await asyncio.wait_for(of_all.get(), 30)
        assert (event.id, event.status) == (first, Status.CANCELLED)
        assert time.monotonic() - asked < 10
        # One that ends leaves its followers to the other.
        position = event.position
        following.cancel()
        assert (await there.end(signal.SIGTERM))[0] == 0
        third = await client.submit("test/long", {})
        missed = await anext(client.follow_all(after=position))
        assert isinstance(missed, JobEvent)
        assert missed.id == third


async def _told(follower: httpx.Response, count: int) -> None:
    """Until it has been told of so many jobs."""
    told = 0
    async for chunk in follower.aiter_bytes():
        told += chunk.count(b"event: job\n")
        if told >= count:
            return


def _memory_bytes(process: Process) -> int:
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


async def test_followers_who_do_not_read_hold_up_neither_others_nor_the_end(
    database_urls: DatabaseUrls, types: None
) -> None:
    async with started(database_urls.service) as process, _client(process) as client:
        await process.ready()
        job_id = await client.submit("test/long", {})
        writers = []
        for path in (*["/api/events"] * 20, f"/api/jobs/{job_id}/events"):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", process.ports["api"], limit=1024
            )
            head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
            writer.write(head.encode())
            assert b" 200 " in await reader.readline()
            writers.append(writer)
        before = _memory_bytes(process)
        # More than the sockets hold.
        async with (
            _plain(process) as other,
            other.stream("GET", "/api/events") as follower,
            await connect(database_urls.service) as connection,
        ):
            reading = asyncio.create_task(_told(follower, 30 * 450))
            for _ in range(30):
                await insert_jobs(connection, [new_job(key=uuid4().hex * 8) for _ in range(450)])
                await asyncio.sleep(0.1)
            await asyncio.wait_for(reading, 30)
        assert _memory_bytes(process) - before < 150 * 1024 * 1024
        asked = time.monotonic()
        code, log = await process.end(signal.SIGTERM)
        assert code == 0, log
        assert time.monotonic() - asked < 15
        for writer in writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def test_a_burst_for_a_hundred_followers_holds_up_nobody(
    database_urls: DatabaseUrls, types: None
) -> None:
    async with started(database_urls.service) as process, AsyncExitStack() as stack:
        await process.ready()
        client = await stack.enter_async_context(_plain(process))
        followers = [
            await stack.enter_async_context(client.stream("GET", "/api/events"))
            for _ in range(MAX_FEEDS)
        ]
        assert {follower.status_code for follower in followers} == {200}
        jobs = [new_job() for _ in range(1000)]
        async with await connect(database_urls.service) as connection:
            await insert_jobs(connection, jobs)

        reading = asyncio.gather(*(_told(follower, len(jobs)) for follower in followers))
        longest = 0.0
        while not reading.done():
            asked = time.monotonic()
            async with httpx.AsyncClient(base_url=process.url("health")) as other:
                await other.get("/healthz", timeout=10)
            longest = max(longest, time.monotonic() - asked)
            await asyncio.wait([reading], timeout=0.05)
        await reading
        assert longest < 1.5


async def test_commands_that_wait_go_on_when_their_ingress_is_replaced(
    database_urls: DatabaseUrls, types: None
) -> None:
    line = '{"type": "test/long", "payload": {}}'
    async with started(database_urls.service) as first:
        await first.ready()
        variables = {"HYBRIDJOBS_API_URL": first.url("api"), "HYBRIDJOBS_API_TOKEN": TOKEN}
        waiting = [
            asyncio.create_task(run("submit", "test/long", "--wait", **variables)),
            asyncio.create_task(run("batch", "-", "--wait", stdin=line, **variables)),
        ]
        async with await connect(database_urls.service) as connection:

            async def both_submitted() -> bool:
                return len(await _open_jobs(connection)) == 2

            await eventually(both_submitted)
            await asyncio.sleep(1)
            assert (await first.end(signal.SIGTERM))[0] == 0
            # While nobody listens.
            await asyncio.sleep(1)
            async with started(
                database_urls.service, HYBRIDJOBS_API_PORT=str(first.ports["api"])
            ) as second:
                await second.ready()
                for job_id in await _open_jobs(connection):
                    await connection.execute(
                        "UPDATE hybridjobs.background_jobs SET status = 'completed' WHERE id = %s",
                        [job_id],
                    )
                job, batch = await asyncio.gather(*waiting)
    assert (job.code, "completed" in job.out) == (0, True), job.err
    assert (batch.code, batch.out) == (0, "1 jobs: 1 completed\n"), batch.err


async def _open_jobs(connection: psycopg.AsyncConnection[DictRow]) -> list[UUID]:
    cursor = await connection.execute(
        "SELECT id FROM hybridjobs.background_jobs WHERE status = 'queued'"
    )
    return [row["id"] for row in await cursor.fetchall()]
