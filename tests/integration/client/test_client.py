"""The client against an ingress, and inside an application's own transaction."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from hybridjobs.client import BatchJob, Client, JobEvent
from hybridjobs.errors import InvalidInput
from hybridjobs.ids import new_id
from hybridjobs.model import AttemptEnd, Outcome, Status
from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.ingress.conftest import TOKEN, Running, running
from tests.integration.ingress.outcomes import FAILED, end_all
from tests.integration.ingress.test_tree import family

PAGE = Path(__file__).parents[3] / "docs" / "client.md"


@pytest.fixture
async def ingress(database_urls: DatabaseUrls) -> AsyncIterator[Running]:
    async with running(database_urls.service, inline_children=0) as ingress:
        await ingress.register(job_type(), job_type("test/other"))
        yield ingress


@pytest.fixture
async def client(ingress: Running) -> AsyncIterator[Client]:
    async with Client(f"http://127.0.0.1:{ingress.ports.api}", TOKEN) as client:
        yield client


async def test_a_job_has_a_tree(client: Client, ingress: Running) -> None:
    places = [*[0] * 1100, 1]
    ids = [UUID(each) for each in await family(ingress, *places)]
    found = await client.tree(ids[0])
    assert [job.id for job in found.jobs] == ids  # by more than a page
    assert (found.counts, found.complete) == ({Status.QUEUED: 1101}, True)
    last = found.jobs[-1]
    assert (last.parent_id, last.depth, last.type) == (ids[1], 2, "test/long")
    assert found.jobs[0].parent_id is None
    assert found.jobs[1].counts == {Status.QUEUED: 1}
    below = await client.tree(ids[1], depth=1, width=5)
    assert [(job.id, job.depth) for job in below.jobs] == [(ids[1], 0), (ids[-1], 1)]
    assert below.jobs[0].parent_id is None
    with pytest.raises(InvalidInput) as raised:
        await client.tree(new_id())
    assert raised.value.status == 404


async def test_a_job_is_submitted_and_followed(client: Client, ingress: Running) -> None:
    first = await client.submit("test/long", {"n": 1}, key="k")
    assert await client.submit("test/long", {"n": 1}, key="k") == first
    later = datetime.now(UTC) + timedelta(hours=1)
    second = await client.submit(
        "test/long", [1.5, None], run_at=later, depends_on=[first], max_retries=0, priority=3
    )
    row = await ingress.job(second)
    assert (row.run_at, row.waits_for, row.max_retries) == (later, [first], 0)
    waiting = asyncio.create_task(client.wait(first, timeout=20))
    await end_all(ingress, FAILED)
    job = await waiting
    assert (job.id, job.type, job.status) == (first, "test/long", Status.FAILED)
    assert (job.error, job.attempt) == ("no such customer", 1)
    assert job.document["attempts"][0]["outcome"] == "permanent"
    await client.retry(first)
    assert (await client.job(first)).status is Status.QUEUED
    assert await client.cancel(first) is Status.CANCELLED
    with pytest.raises(TimeoutError):
        await client.wait(await client.submit("test/long", {}), timeout=0.2)


async def test_what_the_caller_did_wrong(client: Client) -> None:
    with pytest.raises(InvalidInput) as caught:
        await client.submit("test/long", {}, depends_on=[new_id()])
    assert [error.path for error in caught.value.errors] == ["/dependsOn/0"]
    with pytest.raises(InvalidInput) as caught:
        await client.job(new_id())
    assert caught.value.status == 404
    over = await client.submit("test/long", {})
    await client.cancel(over)
    with pytest.raises(InvalidInput) as caught:
        await client.cancel(over)
    assert caught.value.status == 409


async def test_a_batch_is_counted_and_waited_for(client: Client, ingress: Running) -> None:
    jobs = [
        BatchJob(type="test/long", payload=1, ref="first"),
        BatchJob(type="test/other", payload=2, depends_on=["first"]),
    ]
    batch = await client.submit_batch(jobs, key="k")
    assert batch.total == 2
    assert (await client.submit_batch(jobs, key="k")).id == batch.id
    assert (await batch.counts())[Status.QUEUED] == 2
    with pytest.raises(TimeoutError):
        await batch.wait(timeout=0.1)
    waiting = asyncio.create_task(batch.wait(timeout=30))
    while not waiting.done():
        await end_all(ingress)
        await asyncio.wait([waiting], timeout=0.1)
    assert (await waiting)[Status.COMPLETED] == 2


async def test_all_jobs_are_followed_and_later_gone_on_with(
    client: Client, ingress: Running
) -> None:
    seen: list[JobEvent] = []

    async def follow(after: str, until: Status) -> None:
        async with aclosing(
            client.follow_all(type_="test/other", statuses=[Status.QUEUED, until], after=after)
        ) as events:
            async for event in events:
                assert isinstance(event, JobEvent)
                seen.append(event)
                if event.status is until:
                    return

    following = asyncio.create_task(follow("", Status.FAILED))
    others = set()
    while not seen:  # those before it has begun are not told of
        await client.submit("test/long", {})
        others.add(await client.submit("test/other", {}))
        await asyncio.sleep(0.3)
    # What ends a line elsewhere ends none here.
    await end_all(ingress, AttemptEnd(Outcome.PERMANENT, "PermanentError", "a\u2028b\x85c"))
    await following
    assert {event.id for event in seen} <= others
    assert (seen[0].status, seen[-1].status) == (Status.QUEUED, Status.FAILED)
    assert seen[-1].document["error"] == "a\u2028b\x85c"
    position, told = seen[0].position, len(seen)
    second = await client.submit("test/other", {})
    await client.cancel(second)
    await follow(position, Status.CANCELLED)
    assert [(event.id, event.status) for event in seen[told:]] == [(second, Status.CANCELLED)]
    with pytest.raises(InvalidInput, match="Last-Event-ID"):
        await follow("nowhere", Status.CANCELLED)


async def test_hundreds_are_waited_for_by_one_client(client: Client, ingress: Running) -> None:
    batch = await client.submit_batch([BatchJob(type="test/long", payload=n) for n in range(150)])
    async with ingress.database.connection() as connection:
        cursor = await connection.execute("SELECT id FROM hybridjobs.background_jobs")
        ids = [row["id"] for row in await cursor.fetchall()]
    waiting = [asyncio.create_task(client.wait(job_id, timeout=30)) for job_id in ids]
    await asyncio.sleep(1)
    assert (await client.job(ids[0])).status is Status.QUEUED, "nobody waits for a connection"
    while await end_all(ingress):
        pass
    assert {(await job).status for job in waiting} == {Status.COMPLETED}
    assert (await batch.wait())[Status.COMPLETED] == 150


async def test_a_job_in_the_callers_transaction(
    ingress: Running, database_urls: DatabaseUrls
) -> None:
    client = Client()
    async with await psycopg.AsyncConnection.connect(
        database_urls.handlers, row_factory=dict_row
    ) as connection:
        await client.submit("test/long", {"n": 1}, conn=connection)
        await connection.rollback()
        assert await ingress.count() == 0
        first = await client.submit("test/long", {"n": 1}, key="k", conn=connection)
        again = await client.submit("test/long", {"n": 1}, key="k", conn=connection)
        later = datetime.now(UTC) + timedelta(hours=1)
        second = await client.submit(
            "test/other",
            "payload",
            priority=-5,
            deadline_seconds=60,
            max_retries=1,
            run_at=later,
            unique_key="u",
            unique_while="queued",
            depends_on=[first],
            on_dependency_failure="run",
            conn=connection,
        )
        assert await ingress.count() == 0
        await connection.commit()
        assert first == again
        row = await ingress.job(second)
        assert (row.payload, row.source, row.submitted_by) == ('"payload"', "sql", "jobs")
        assert (row.priority, row.deadline_seconds, row.max_retries) == (-5, 60, 1)
        assert (row.run_at, row.unique_key, row.unique_while) == (later, "u", "queued")
        assert (row.waits_for, row.stage) == ([first], "blocked")
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="there is no job type"):
            await client.submit("test/none", {}, conn=connection)
    await client.close()


async def test_a_job_of_the_callers_transaction_calls_back(
    client: Client, ingress: Running, database_urls: DatabaseUrls
) -> None:
    async with await psycopg.AsyncConnection.connect(database_urls.handlers) as connection:
        job_id = await client.submit(
            "test/long", {}, callback="https://a.example/done", conn=connection
        )
    assert (await ingress.job(job_id)).callbacks == [
        {"url": "https://a.example/done", "on": ["completed", "failed", "cancelled"]}
    ]


async def test_the_examples_of_the_documentation_run(
    client: Client,
    ingress: Running,
    database_urls: DatabaseUrls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HYBRIDJOBS_API_URL", f"http://127.0.0.1:{ingress.ports.api}")
    monkeypatch.setenv("HYBRIDJOBS_API_TOKEN", TOKEN)
    await ingress.register(job_type("report/nightly"), job_type("report/send"))
    async with await psycopg.AsyncConnection.connect(database_urls.owner, autocommit=True) as owner:
        await owner.execute("CREATE TABLE orders (id int)")
        await owner.execute("GRANT INSERT ON orders TO PUBLIC")
    names: dict[str, Any] = {"client": client, "DATABASE_URL": database_urls.handlers}
    for example in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        body = "\n".join(f"    {line}" for line in example.splitlines())
        exec(
            compile(f"async def example():\n{body}\n    return locals()", str(PAGE), "exec"), names
        )
        working = asyncio.create_task(names["example"]())
        while not working.done():
            await end_all(ingress)
            await asyncio.wait([working], timeout=0.1)
        found = working.result()
        if "counts" in found:
            assert found["counts"][Status.COMPLETED] == 8
    assert (await ingress.job(found["job_id"])).source == "sql"
