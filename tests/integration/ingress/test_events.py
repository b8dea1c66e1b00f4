"""Jobs followed over real sockets."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import pytest

from hybridjobs.ingress import live
from hybridjobs.ingress.api import events
from hybridjobs.model import AttemptEnd, Outcome, Progress
from hybridjobs.store.batches import get_batches
from hybridjobs.store.enqueue import insert_jobs
from hybridjobs.store.heartbeats import Beat, record_beats
from hybridjobs.store.outcome import record_outcome
from tests.builders import job_type, new_job
from tests.conftest import DatabaseUrls
from tests.integration.ingress.conformance import event_schema
from tests.integration.ingress.conftest import TOKEN, Running, running
from tests.integration.ingress.outcomes import FAILED, claimed, end_all
from tests.waiting import eventually

LONG = {"type": "test/long", "payload": {}}


@pytest.fixture
async def api(ingress: Running) -> Running:
    await ingress.register(job_type(), job_type("test/other"))
    return ingress


class Stream:
    """What an EventSource would see; `id` is where it would go on."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.id: str | None = None
        self._lines = response.aiter_lines()
        path = response.request.url.path
        self._schema = event_schema(path) if response.status_code == 200 else None

    async def next(self) -> tuple[str, Any] | None:
        """The next event and its data; None: the stream has ended."""
        event, data = "message", []
        async with asyncio.timeout(30):
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if name == "id":
                    self.id = value
                elif name == "event":
                    event = value
                elif name == "data":
                    data.append(value)
                elif not line and data:
                    found = json.loads("\n".join(data))
                    if event in ("job", "batch") and self._schema is not None:
                        self._schema.validate(found)
                    return event, found
        return None

    async def position(self) -> str:
        """Until the server has said where this client is."""
        async with asyncio.timeout(30):
            async for line in self._lines:
                if line.startswith("id: "):
                    self.id = line[4:]
                    return self.id
        raise AssertionError("the stream has ended")

    async def job(self) -> Any:
        event = await self.next()
        assert event is not None
        assert event[0] == "job"
        return event[1]


@asynccontextmanager
async def followed(
    api: Running, path: str = "/api/events", *, after: str | None = None, **query: str
) -> AsyncIterator[Stream]:
    headers = {} if after is None else {"Last-Event-ID": after}
    async with api.api.stream("GET", path, headers=headers, params=query) as response:
        yield Stream(response)


async def position_of(api: Running) -> str:
    """Where who follows all jobs from now on begins."""
    async with followed(api) as stream:
        return await stream.position()


async def test_a_job_is_followed_to_its_end(api: Running) -> None:
    job_id = (await api.submit("test/long")).json()["id"]
    async with followed(api, f"/api/jobs/{job_id}/events") as stream:
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        first = await stream.job()
        assert (first["id"], first["status"], first["attempt"]) == (job_id, "queued", 0)
        [claim] = await claimed(api)
        assert (await stream.job())["attempt"] == 1
        async with api.database.transaction() as connection:
            await connection.execute(
                "UPDATE hybridjobs.background_jobs SET status = 'processing' WHERE id = %s", [claim]
            )
            await record_beats(connection, [Beat(claim, 1, Progress(1, 2, "half"))])
        while (seen := await stream.job())["progress"] is None:
            assert seen["status"] == "processing"
        assert seen["progress"]["done"] == 1
        await end_attempt(api, job_id)
        assert (await stream.job())["status"] == "completed"
        assert await stream.next() is None
    # An EventSource comes back by itself, until it is told that there is no more.
    async with followed(api, f"/api/jobs/{job_id}/events", after=stream.id) as again:
        assert again.response.status_code == 204
    async with followed(api, f"/api/jobs/{job_id}/events", after="1") as again:
        assert (await again.job())["status"] == "completed"
        assert await again.next() is None


async def end_attempt(api: Running, job_id: str) -> None:
    job = await api.job(job_id)
    async with api.database.transaction() as connection:
        end = AttemptEnd(Outcome.SUCCEEDED, "Completed")
        await record_outcome(connection, job.id, job.attempt, end)


async def test_the_stream_of_a_job_that_is_deleted_ends(api: Running, database_url: str) -> None:
    job_id = (await api.submit("test/long")).json()["id"]
    async with followed(api, f"/api/jobs/{job_id}/events") as stream:
        await stream.job()
        async with api.database.connection() as connection:
            await connection.execute("DELETE FROM hybridjobs.background_jobs")
        assert await stream.next() is None
    assert (await api.api.get(f"/api/jobs/{uuid4()}/events")).status_code == 404


async def test_a_batch_is_followed_until_it_is_finished(api: Running) -> None:
    body = {"jobs": [{"type": "test/long", "payload": n} for n in range(3)]}
    batch = (await api.api.post("/api/jobs:batch", json=body)).json()
    path = f"{batch['url']}/events"

    async def counts(stream: Stream) -> Any:
        event = await stream.next()
        assert event is not None
        name, found = event
        assert (name, found["id"]) == ("batch", batch["id"])
        return {status: jobs for status, jobs in found["counts"].items() if jobs}

    async with followed(api, path) as stream:
        assert await counts(stream) == {"queued": 3}
        jobs = await claimed(api)
        await end_attempt(api, str(jobs[0]))
        assert await counts(stream) == {"queued": 2, "completed": 1}
        for job_id in jobs[1:]:
            await api.api.post(f"/api/jobs/{job_id}/cancel")
            await end_attempt(api, str(job_id))
        while (found := await counts(stream)) != {"completed": 3}:
            assert found["queued"]
        assert await stream.next() is None
    async with followed(api, path, after=stream.id) as again:
        assert again.response.status_code == 204
    async with followed(api, path, after="3-0-0-0-0") as again:
        assert await counts(again) == {"completed": 3}
        assert await again.next() is None
    assert (await api.api.get(f"/api/batches/{uuid4()}/events")).status_code == 404


async def test_a_batch_whose_open_jobs_are_deleted_is_finished_in_time(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_RECOUNT_SECONDS", 1)
    batch = (await api.api.post("/api/jobs:batch", json={"jobs": [LONG]})).json()
    async with followed(api, f"{batch['url']}/events") as stream:
        await stream.next()
        await asyncio.sleep(0.5)
        async with api.database.connection() as connection:
            await connection.execute("DELETE FROM hybridjobs.background_jobs")
        event = await stream.next()
        assert event is not None
        assert event[1]["finished"]
        assert await stream.next() is None


async def test_who_waits_for_a_batch_reads_once_for_all(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0

    async def counting(*arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        return await get_batches(*arguments)

    monkeypatch.setattr("hybridjobs.ingress.live.get_batches", counting)
    url = (await api.api.post("/api/jobs:batch", json={"jobs": [LONG]})).json()["url"]
    waiting = [asyncio.create_task(api.api.get(url, params={"wait": 20})) for _ in range(20)]
    await asyncio.sleep(2)
    await end_all(api)
    assert all(answer.json()["finished"] for answer in await asyncio.gather(*waiting))
    assert reads <= 5


async def test_all_jobs_are_followed_or_those_of_a_type(api: Running) -> None:
    async with (
        followed(api) as all_of_them,
        followed(api, type="test/other") as other,
        followed(api, status="completed,failed") as over,
    ):
        for stream in (all_of_them, other, over):
            await stream.position()
        first = (await api.submit("test/long")).json()["id"]
        second = (await api.submit("test/other")).json()["id"]
        seen = {(await all_of_them.job())["id"] for _ in range(2)}
        assert seen == {first, second}
        assert (await other.job())["id"] == second
        await end_all(api, FAILED)
        assert {(await over.job())["status"] for _ in range(2)} == {"failed"}


async def test_who_comes_back_misses_nothing_also_from_another_replica(
    api: Running, database_urls: DatabaseUrls
) -> None:
    async with followed(api) as stream:
        await stream.position()
        first = (await api.submit("test/long")).json()["id"]
        assert (await stream.job())["id"] == first
    missed = [(await api.submit("test/long")).json()["id"] for _ in range(3)]
    async with (
        running(database_urls.service, inline_children=0) as replica,
        followed(replica, after=stream.id) as again,
    ):
        assert [(await again.job())["id"] for _ in range(3)] == missed
        late = (await api.submit("test/other")).json()["id"]
        assert (await again.job())["id"] == late


async def test_what_commits_late_comes_late_and_is_not_missed(api: Running) -> None:
    async with followed(api) as stream:
        await stream.position()
        async with api.database.transaction() as slow:
            early = new_job()
            await insert_jobs(slow, [early])
            other = (await api.submit("test/other")).json()["id"]
            assert (await stream.job())["id"] == other
            position = stream.id
        assert (await stream.job())["id"] == str(early.id)
    async with followed(api, after=position) as again:
        assert (await again.job())["id"] == str(early.id)


async def test_what_is_too_much_to_catch_up_with_is_said(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with followed(api) as stream:
        position = await stream.position()
    monkeypatch.setattr(live, "MAX_CHANGES", 3)
    for _ in range(4):
        await api.submit("test/long")
    async with followed(api, after=position) as again:
        assert await again.next() == ("reset", {})
        new = (await api.submit("test/long")).json()["id"]
        assert (await again.job())["id"] == new


@pytest.mark.parametrize("given", ["nonsense", "0:2:1:", "0:1:5:9", "1:5:"])
async def test_an_id_that_is_none(api: Running, given: str) -> None:
    answer = await api.api.get("/api/events", headers={"Last-Event-ID": given})
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "/Last-Event-ID")


async def test_an_id_of_a_later_time_of_the_database_starts_anew(api: Running) -> None:
    async with followed(api) as stream:
        era = (await stream.position()).partition(":")[0]
    for other in (f"{era}:9000000000:9000000000:", "1:1:1:"):
        async with followed(api, after=other) as stream:
            assert await stream.next() == ("reset", {})


async def test_who_does_not_read_is_cut_off_and_gets_the_rest_later(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_HELD", 500)
    monkeypatch.setattr(events, "_SEND_SECONDS", 2)
    async with followed(api) as stream:
        position = await stream.position()
        # More than the sockets hold, of which nothing is read meanwhile.
        for _ in range(30):
            async with api.database.connection() as connection:
                await insert_jobs(connection, [new_job(key=uuid4().hex * 8) for _ in range(450)])
            await asyncio.sleep(live.PERIOD_SECONDS)
        seen = set()
        with pytest.raises((httpx.HTTPError, AssertionError)):  # noqa: PT012
            while True:
                seen.add((await stream.job())["id"])
    assert 0 < len(seen) < 30 * 450
    async with followed(api, after=stream.id or position) as again:
        while len(seen) < 30 * 450:
            seen.add((await again.job())["id"])


async def test_there_are_only_so_many_followers(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_FEEDS", 1)
    monkeypatch.setattr(live, "MAX_WATCHES", 0)
    job_id = (await api.submit("test/long")).json()["id"]
    async with followed(api) as stream:
        await stream.position()
        for path in ("/api/events", f"/api/jobs/{job_id}/events"):
            answer = await api.api.get(path)
            assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    # The place of who has left is free again.
    await eventually(partial(_is_followed, api))


async def _is_followed(api: Running) -> bool:
    async with api.api.stream("GET", "/api/events") as response:
        return response.status_code == 200


async def test_streams_end_with_the_process(database_urls: DatabaseUrls) -> None:
    async with running(database_urls.service, inline_children=0) as ingress:
        await ingress.register(job_type())
        job_id = (await ingress.submit("test/long")).json()["id"]
        async with (
            followed(ingress) as jobs,
            followed(ingress, f"/api/jobs/{job_id}/events") as job,
        ):
            await jobs.position()
            await job.job()
            asked = time.monotonic()
            ingress.stop.set()
            assert await jobs.next() is None
            assert await job.next() is None
            await ingress.task
            assert time.monotonic() - asked < 15


async def test_a_stream_needs_the_token(api: Running) -> None:
    del api.api.headers["Authorization"]
    assert (await api.api.get("/api/events")).status_code == 401
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with api.api.stream("GET", "/api/events", headers=headers) as response:
        assert response.status_code == 200
