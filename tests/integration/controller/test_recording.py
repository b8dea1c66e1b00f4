"""Statements that the operator shares with others, on a real Postgres."""

import asyncio
from datetime import UTC, datetime

import pytest
from prometheus_client import REGISTRY
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.controller import metrics
from hybridjobs.ids import new_id
from hybridjobs.model import AttemptEnd, Claim, Outcome, Status
from hybridjobs.store import attempts
from hybridjobs.store.claim import claim
from hybridjobs.store.database import Database
from hybridjobs.store.jobs import get_job
from hybridjobs.store.outcome import record_outcome
from hybridjobs.store.queue import pause_queue
from hybridjobs.store.resources import mark_dispatched
from tests.builders import job_type, register
from tests.conftest import DatabaseUrls
from tests.waiting import eventually

_INSERT = "INSERT INTO hybridjobs.background_jobs (id, type) VALUES (%s, 'test/long')"


async def _somebody_waits(connection: AsyncConnection[DictRow]) -> bool:
    cursor = await connection.execute(
        "SELECT FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return await cursor.fetchone() is not None


async def _claimed_job(database: Database) -> Claim:
    """A job whose first attempt was handed out."""
    async with database.connection() as connection:
        await register(connection, job_type())
        await connection.execute(_INSERT, [new_id()])
    async with database.transaction() as connection:
        [claimed] = await claim(connection, window=10)
    return claimed


@pytest.mark.parametrize("write", ["start", "bind", "mark"])
async def test_the_jobs_row_is_locked_before_the_attempts(
    write: str, database_urls: DatabaseUrls
) -> None:
    async with Database(database_urls.service, size=4) as database:
        claimed = await _claimed_job(database)
        names = (claimed.job_id, claimed.attempt)

        async def other() -> None:
            async with database.connection() as connection:
                if write == "start":
                    now = datetime.now(UTC)
                    await attempts.start(
                        connection, *names, pod_name="p", pod_uid="u", started_at=now
                    )
                elif write == "bind":
                    await attempts.bind_hybridjob(
                        connection, *names, namespace="n", name="a", uid="u"
                    )
                else:
                    await mark_dispatched(connection, claimed, namespace="n", name="a", uid="u")

        async with database.transaction() as connection:
            await connection.execute(
                "SELECT FROM hybridjobs.background_jobs WHERE id = %s FOR UPDATE", [claimed.job_id]
            )
            writing = asyncio.create_task(other())
            async with database.connection() as watching:
                while not await _somebody_waits(watching):  # noqa: ASYNC110 - on Postgres
                    await asyncio.sleep(0.01)
            # Whoever waits for the job must not hold the attempt.
            await connection.execute(
                "SELECT FROM hybridjobs.job_attempts WHERE job_id = %s FOR UPDATE NOWAIT",
                [claimed.job_id],
            )
        await writing


async def test_binding_notes_what_a_dead_dispatcher_could_not(database_urls: DatabaseUrls) -> None:
    async with Database(database_urls.service, size=2) as database:
        claimed = await _claimed_job(database)
        async with database.connection() as connection:
            for uid in ("u", "v"):
                bound = await attempts.bind_hybridjob(
                    connection, claimed.job_id, 1, namespace="n", name="a", uid=uid
                )
                assert bound == "u"
            row = await attempts.read_job(connection, claimed.job_id)
            job = await get_job(connection, claimed.job_id)
    assert row is not None
    assert job is not None
    assert (row.resource_uid, job.namespace, job.resource_name) == ("u", "n", "a")


async def test_a_dispatcher_that_confirms_late_changes_nothing(database_urls: DatabaseUrls) -> None:
    async with Database(database_urls.service, size=2) as database:
        claimed = await _claimed_job(database)
        async with database.connection() as connection:
            for uid in ("made anew", "late"):
                await mark_dispatched(connection, claimed, namespace="n", name="a", uid=uid)
            row = await attempts.read_job(connection, claimed.job_id)
    assert row is not None
    assert (row.hybridjob_uid, row.resource_uid) == ("made anew", "made anew")


@pytest.mark.parametrize("after", [float("inf"), 1e300, -1.0])
async def test_a_failure_is_recorded_whatever_its_account_says(
    after: float, database_urls: DatabaseUrls
) -> None:
    async with Database(database_urls.service, size=2) as database:
        claimed = await _claimed_job(database)
        end = AttemptEnd(Outcome.FAILED, "Error", "cut\0off", retry_after_seconds=after)
        async with database.transaction() as connection:
            recorded = await record_outcome(connection, claimed.job_id, 1, end)
        async with database.connection() as connection:
            job = await get_job(connection, claimed.job_id)
    assert recorded is not None
    assert job is not None
    assert (recorded.status, job.error) == (Status.QUEUED, "cut\N{REPLACEMENT CHARACTER}off")


async def test_the_queue_s_figures_are_told_while_leading(database_urls: DatabaseUrls) -> None:
    def told(name: str) -> float | None:
        return REGISTRY.get_sample_value(f"hybridjobs_{name}", {"type": "test/long"})

    async with Database(database_urls.service, size=2) as database:
        async with database.connection() as connection:
            await register(connection, job_type())
            await connection.execute(_INSERT, [new_id()])
        leading = asyncio.create_task(metrics.follow_queue(database))
        await eventually(lambda: told("ready_jobs") == 1)
        assert told("oldest_ready_seconds") is not None
        assert told("paused") is None
        leading.cancel()
        await asyncio.wait([leading])
        assert told("ready_jobs") is None
        async with database.connection() as connection:
            await pause_queue(connection, by="ana")
        leading = asyncio.create_task(metrics.follow_queue(database))
        await eventually(lambda: told("paused") == 1)
        leading.cancel()
        await asyncio.wait([leading])
    assert told("paused") is None
