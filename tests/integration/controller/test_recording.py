"""Statements that the operator shares with others, on a real Postgres."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import REGISTRY
from psycopg import AsyncConnection
from psycopg.errors import LockNotAvailable
from psycopg.rows import DictRow

from hybridjobs.controller import metrics
from hybridjobs.ids import new_id
from hybridjobs.model import AttemptEnd, Claim, Outcome, Status
from hybridjobs.store import attempts, outcome
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
        [claimed] = await claim(connection, window=100)
    return claimed


@pytest.mark.parametrize("write", ["start", "bind", "mark", "succeeded", "failed"])
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
                elif write in ("succeeded", "failed"):
                    await record_outcome(connection, *names, AttemptEnd(Outcome(write), "Ended"))
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


async def test_binding_changes_no_row_that_stands_by_another(database_urls: DatabaseUrls) -> None:
    async def bound(database: Database, uid: str) -> tuple[str | None, str | None]:
        async with database.connection() as connection:
            await attempts.bind_hybridjob(
                connection, claimed.job_id, 1, namespace="n", name="a", uid=uid
            )
            row = await attempts.read_job(connection, claimed.job_id)
        assert row is not None
        return row.hybridjob_uid, row.resource_uid

    async with Database(database_urls.service, size=2) as database:
        claimed = await _claimed_job(database)
        async with database.connection() as connection:
            point = "UPDATE hybridjobs.background_jobs SET resource_uid = %s WHERE id = %s"
            await connection.execute(point, ["made anew", claimed.job_id])
            assert await bound(database, "first") == ("first", "made anew")
            await connection.execute(point, [None, claimed.job_id])
            assert await bound(database, "late") == ("first", None)
            assert await bound(database, "first") == ("first", "first")


async def test_a_dispatcher_that_confirms_late_changes_nothing(database_urls: DatabaseUrls) -> None:
    async with Database(database_urls.service, size=2) as database:
        claimed = await _claimed_job(database)
        async with database.connection() as connection:
            for uid in ("made anew", "late"):
                await mark_dispatched(connection, claimed, namespace="n", name="a", uid=uid)
            row = await attempts.read_job(connection, claimed.job_id)
    assert row is not None
    assert (row.hybridjob_uid, row.resource_uid) == ("made anew", "made anew")


async def test_a_job_is_held_from_the_look_at_it_to_its_end(
    database_urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody cancels it in between, whose cancel would be lost."""
    between: list[str | None] = []
    counted = outcome._free_retries

    async def count(*given: Any) -> Any:
        async with database.connection() as other:
            try:
                await other.execute(
                    "SELECT FROM hybridjobs.background_jobs WHERE id = %s FOR UPDATE NOWAIT",
                    [claimed.job_id],
                )
            except LockNotAvailable:
                between.append("held")
        return await counted(*given)

    monkeypatch.setattr(outcome, "_free_retries", count)
    async with Database(database_urls.service, size=3) as database:
        claimed = await _claimed_job(database)
        async with _recording(database_urls) as outcomes:
            end = AttemptEnd(Outcome.FAILED, "Error")
            recorded = await outcomes.record(claimed.job_id, 1, end)
    assert recorded is not None
    assert (recorded.changed, between) == (True, ["held"])


@asynccontextmanager
async def _recording(database_urls: DatabaseUrls) -> AsyncIterator[outcome.Outcomes]:
    outcomes = outcome.Outcomes(database_urls.service)
    running = asyncio.create_task(outcomes.run())
    yield outcomes
    running.cancel()
    await asyncio.wait([running])


async def test_of_two_reports_at_once_the_first_counts(database_urls: DatabaseUrls) -> None:
    """Also where one commit has both, behind others."""
    async with Database(database_urls.service, size=2) as database:
        others = [await _claimed_job(database) for _ in range(4)]
        claimed = await _claimed_job(database)
        async with _recording(database_urls) as outcomes:
            reports = [(each.job_id, "0") for each in others]
            reports += [(claimed.job_id, result) for result in ("1", "2", "3")]
            answers = await asyncio.gather(
                *(
                    outcomes.record(job_id, 1, AttemptEnd(Outcome.SUCCEEDED, "Completed", result=r))
                    for job_id, r in reports
                )
            )
        async with database.connection() as connection:
            job = await get_job(connection, claimed.job_id)
    assert [each is not None and each.changed for each in answers] == [True] * 5 + [False] * 2
    assert job is not None
    assert (job.result, job.error) == ("1", None)


async def test_a_late_report_adds_what_was_not_known(database_urls: DatabaseUrls) -> None:
    async with Database(database_urls.service, size=2) as database:
        claimed = await _claimed_job(database)
        for end in (
            AttemptEnd(Outcome.SUCCEEDED, "Completed"),
            AttemptEnd(Outcome.FAILED, "Error", "late", exit_code=1, log_tail="the log"),
            AttemptEnd(Outcome.FAILED, "Error", "later", exit_code=2, log_tail="another"),
        ):
            async with database.transaction() as connection:
                await record_outcome(connection, claimed.job_id, 1, end)
        async with database.connection() as connection:
            job = await get_job(connection, claimed.job_id)
    assert job is not None
    [attempt] = job.attempts
    assert (attempt.outcome, attempt.reason) == (Outcome.SUCCEEDED, "Completed")
    assert (job.outcome_reason, job.started_at) == ("Completed", job.completed_at)
    assert (attempt.exit_code, attempt.log_tail) == (1, "the log")


async def test_a_result_that_postgres_cannot_hold_fails_the_job(
    database_urls: DatabaseUrls,
) -> None:
    async with Database(database_urls.service, size=2) as database:
        claimed = await _claimed_job(database)
        end = AttemptEnd(Outcome.SUCCEEDED, "Completed", result='"\\u0000"', exit_code=0)
        recorded = await outcome.record_final_outcome(database, claimed.job_id, 1, end)
        async with database.connection() as connection:
            job = await get_job(connection, claimed.job_id)
    assert recorded is not None
    assert job is not None
    assert (recorded.status, job.outcome_reason) == (Status.FAILED, "InvalidResult")


@pytest.mark.parametrize("after", [float("inf"), float("nan"), 1e300, -1.0])
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
