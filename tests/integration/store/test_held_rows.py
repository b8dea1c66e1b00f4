"""Whoever keeps rows locked, as an open session of psql may, holds up those and nothing else."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.dispatch.loop import Dispatcher
from hybridjobs.errors import RowLocked
from hybridjobs.ingress.maintenance import end_expired_leases
from hybridjobs.model import AttemptEnd, Claim, Outcome
from hybridjobs.store import attempts, resources, stuck
from hybridjobs.store.database import Database
from hybridjobs.store.heartbeats import Heartbeats
from hybridjobs.store.jobs import retry_failed_jobs
from hybridjobs.store.outcome import Outcomes, request_cancel
from tests.builders import job_type, new_job
from tests.conftest import DatabaseUrls
from tests.integration.store.scene import Queue, held_open

SUCCEEDED = AttemptEnd(Outcome.SUCCEEDED, "Completed")
_NAMES = {"namespace": "jobs", "name": "job"}


@pytest.fixture
async def queue(database: Database) -> Queue:
    queue = Queue(database)
    await queue.register(job_type(heartbeatTimeoutSeconds=300))
    return queue


Hold = Callable[[UUID], AbstractAsyncContextManager[None]]


@pytest.fixture
def hold(database_urls: DatabaseUrls) -> Hold:
    """Somebody keeps the job's row."""

    def hold(job_id: UUID) -> AbstractAsyncContextManager[None]:
        lock = f"SELECT FROM hybridjobs.background_jobs WHERE id = '{job_id}' FOR UPDATE"
        return held_open(database_urls.owner, lock)

    return hold


async def _dispatched(queue: Queue, count: int = 2) -> list[UUID]:
    ids = await queue.enqueue(*(new_job() for _ in range(count)))
    for claim in await queue.claim():
        async with queue.database.connection() as connection:
            await resources.mark_dispatched(connection, claim, uid="uid", **_NAMES)
    return ids


async def test_a_row_that_somebody_keeps_locked_holds_up_its_own_outcome_alone(
    queue: Queue, database_urls: DatabaseUrls, hold: Hold
) -> None:
    ids = await queue.enqueue(*(new_job() for _ in range(30)))
    await queue.claim()
    outcomes = Outcomes(database_urls.service)
    task = asyncio.create_task(outcomes.run())
    async with hold(ids[7]), asyncio.timeout(30):
        answers = await asyncio.gather(
            *(outcomes.record(job, 1, SUCCEEDED) for job in ids), return_exceptions=True
        )
    refused = [place for place, each in enumerate(answers) if isinstance(each, BaseException)]
    assert refused == [7]
    assert isinstance(answers[7], RowLocked)
    again = await outcomes.record(ids[7], 1, SUCCEEDED)
    assert again is not None
    assert again.changed
    task.cancel()


async def test_a_job_that_somebody_keeps_locked_holds_up_its_own_beats_alone(
    queue: Queue, database_urls: DatabaseUrls, hold: Hold
) -> None:
    locked, other = await _dispatched(queue)
    heartbeats = Heartbeats(database_urls.service)
    task = asyncio.create_task(heartbeats.run())
    async with hold(locked), asyncio.timeout(30):
        answers = await asyncio.gather(
            *(heartbeats.beat(job, 1) for job in (locked, other)), return_exceptions=True
        )
    assert [type(answers[0]), answers[1]] == [RowLocked, False]
    assert await heartbeats.beat(locked, 1) is False
    task.cancel()


async def test_lines_whose_heads_somebody_keeps_locked_go_on_behind_them(
    queue: Queue, database_urls: DatabaseUrls
) -> None:
    types = ("test/long", "test/other", "test/third")
    by_key: dict[str, Any] = {"limit": 1, "key": "name"}
    await queue.register(*map(job_type, types[1:]), job_type("test/keyed", concurrency=by_key))
    keyed: dict[str, Any] = {"payload": '{"name": "a"}', "key_path": "name"}
    ids = await queue.enqueue(*(new_job("test/keyed", **keyed) for _ in range(3)))
    [running] = await queue.claimed()
    assert (await queue.stages(ids)).count("parked") == 2
    await queue.end(running)
    await queue.enqueue(*(new_job(type_) for type_ in types[:2] for _ in range(30)))
    change = "UPDATE hybridjobs.background_jobs SET max_retries = 9 WHERE status = 'queued'"
    async with held_open(database_urls.owner, change), asyncio.timeout(30):
        new = await queue.enqueue(*map(new_job, types), new_job("test/keyed", **keyed))
        assert set(await queue.claimed(window=8)) == set(new)
    assert len(await queue.claimed(window=8)) == 4


class _Rows:
    """A runtime that confirms and runs nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def dispatch(self, claimed: Claim) -> bool:
        async with self._database.connection() as connection:
            await resources.mark_dispatched(connection, claimed, uid="uid", **_NAMES)
        return True


async def test_a_claimed_job_that_somebody_keeps_locked_holds_up_no_other_dispatch(
    queue: Queue, hold: Hold
) -> None:
    dispatcher = Dispatcher(queue.database, _Rows(queue.database), window=10)
    [locked] = await queue.enqueue(new_job())
    await queue.claim()
    await queue.pass_time(timedelta(seconds=6))
    await queue.enqueue(new_job())
    async with hold(locked), asyncio.timeout(30):
        assert await dispatcher.dispatch_once() == 1
    assert await dispatcher.dispatch_once() == 1
    assert await dispatcher.dispatch_once() == 0


async def test_nobody_waits_for_long_for_a_row_that_somebody_keeps(
    queue: Queue, hold: Hold
) -> None:
    [locked] = await _dispatched(queue, 1)
    now = datetime.now(UTC)
    pod: dict[str, Any] = {"pod_name": "pod", "pod_uid": "pod", "started_at": now}
    uid = {"uid": "uid", **_NAMES}
    [failed] = await queue.enqueue(new_job())
    await queue.execute("UPDATE background_jobs SET status = 'failed' WHERE id = %s", failed)

    async def refused(work: Callable[[AsyncConnection[DictRow]], Awaitable[Any]]) -> None:
        with pytest.raises(RowLocked):
            async with queue.database.connection() as connection:
                await work(connection)

    async with hold(locked), hold(failed), asyncio.timeout(30):
        await asyncio.gather(
            refused(lambda c: attempts.bind_hybridjob(c, locked, 1, **uid)),
            refused(lambda c: attempts.start(c, locked, 1, **pod)),
            refused(lambda c: resources.forget_uid(c, locked, "uid")),
            refused(lambda c: resources.hand_out_again(c, locked, 1, "uid")),
            refused(lambda c: request_cancel(c, locked)),
            refused(lambda c: retry_failed_jobs(c, [failed])),
        )


async def test_a_spent_hybridjob_whose_job_somebody_keeps_stays_and_the_others_go(
    queue: Queue, hold: Hold
) -> None:
    ids = await _dispatched(queue)
    await queue.end_all()
    for job_id in ids:
        await queue.execute(
            "UPDATE background_jobs SET resource_uid = %s WHERE id = %s", str(job_id), job_id
        )
    locked, other = ids
    async with hold(locked), asyncio.timeout(30), queue.database.connection() as connection:
        asked = [resources.Spent(str(job_id), job_id, 1) for job_id in ids]
        spent = await resources.forget_spent(connection, asked)
    assert spent == {str(other)}


async def test_an_expired_lease_of_a_job_that_somebody_keeps_holds_up_no_other(
    queue: Queue, hold: Hold
) -> None:
    ids = await queue.enqueue(*(new_job(lease_seconds=seconds) for seconds in (-2.0, -1.0)))
    async with hold(ids[0]), asyncio.timeout(30):
        assert await end_expired_leases(queue.database) == 1
    assert [await queue.status(job_id) for job_id in ids] == ["processing", "queued"]
    assert await end_expired_leases(queue.database) == 1


async def test_a_silent_attempt_of_a_job_that_somebody_keeps_holds_up_no_other(
    queue: Queue, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0])
    monkeypatch.setattr(stuck, "monotonic", lambda: next(clock, 1000.0))
    silent = stuck.SilentAttempts(queue.database)
    ids = await _dispatched(queue)
    await queue.execute(
        "UPDATE job_attempts SET claimed_at = now() - interval '6 minutes',"
        " started_at = now() - interval '6 minutes'"
    )
    locked = min(ids)
    async with hold(locked), asyncio.timeout(30):
        assert await silent.end() == 1
    assert await silent.end() == 1
