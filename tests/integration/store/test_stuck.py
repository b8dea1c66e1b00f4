"""Rows that are processing without an attempt, and attempts that have fallen silent."""

from datetime import timedelta
from uuid import UUID

import pytest
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.errors import DatabaseUnavailable
from hybridjobs.ids import new_id
from hybridjobs.model import Status
from hybridjobs.store import stuck
from hybridjobs.store.database import Database
from hybridjobs.store.jobs import Job, get_job
from hybridjobs.store.stuck import SilentAttempts, put_right
from tests.builders import job_type, new_job, register
from tests.integration.store.history import ended_jobs, running_job
from tests.integration.store.scene import Queue

_MINUTE = timedelta(minutes=1)


async def _job(connection: AsyncConnection[DictRow], job_id: UUID) -> Job:
    job = await get_job(connection, job_id)
    assert job is not None
    return job


async def _process_by_hand(connection: AsyncConnection[DictRow], job_id: UUID) -> None:
    await connection.execute(
        "UPDATE hybridjobs.background_jobs SET status = 'processing', started_at = now() "
        "WHERE id = %s",
        [job_id],
    )


@pytest.mark.parametrize(
    ("outcome", "status", "category"),
    [
        ("succeeded", Status.COMPLETED, None),
        ("failed", Status.QUEUED, "unknown"),
        ("permanent", Status.FAILED, "validation"),
        ("cancelled", Status.CANCELLED, None),
    ],
)
async def test_what_the_last_attempt_ended_in_follows(
    database: Database,
    connection: AsyncConnection[DictRow],
    outcome: str,
    status: Status,
    category: str | None,
) -> None:
    [job_id] = await ended_jobs(
        connection, status="processing", outcome=outcome, reason="Why", ago=_MINUTE
    )
    before = (await _job(connection, job_id)).attempts
    assert await put_right(database) == 1
    job = await _job(connection, job_id)
    assert (job.status, job.error_category, job.outcome_reason) == (status, category, "Why")
    assert [(each.outcome, each.ended_at) for each in job.attempts] == [
        (each.outcome, each.ended_at) for each in before
    ]
    cursor = await connection.execute("SELECT original_job_id FROM hybridjobs.dead_letter_queue")
    letters = [row["original_job_id"] for row in await cursor.fetchall()]
    assert letters == ([job_id] if status is Status.FAILED else [])
    assert await put_right(database) == 0


async def test_a_job_without_any_attempt_runs_again(
    database: Database, connection: AsyncConnection[DictRow]
) -> None:
    job_id = new_id()
    await connection.execute(
        "INSERT INTO hybridjobs.background_jobs (id, type) VALUES (%s, 'test/long')", [job_id]
    )
    await _process_by_hand(connection, job_id)
    assert await put_right(database) == 1
    job = await _job(connection, job_id)
    assert (job.status, job.attempt, job.retry_count) == (Status.QUEUED, 1, 0)
    [attempt] = job.attempts
    assert (attempt.outcome, attempt.reason) == ("lost", "AttemptMissing")


async def test_an_end_that_somebody_made_up_is_none(
    database: Database, connection: AsyncConnection[DictRow]
) -> None:
    [job_id] = await ended_jobs(connection, status="processing", outcome="killed", ago=_MINUTE)
    assert await put_right(database) == 1
    job = await _job(connection, job_id)
    assert (job.status, job.outcome_reason) == (Status.QUEUED, "AttemptMissing")
    assert await put_right(database) == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE hybridjobs.job_attempts SET ended_at = now(), outcome = 'lost'", "SetByHand"),
        ("DELETE FROM hybridjobs.job_attempts", "AttemptMissing"),
    ],
)
async def test_a_claimed_job_whose_attempt_somebody_closed_runs_again(
    database: Database, connection: AsyncConnection[DictRow], change: str, reason: str
) -> None:
    queue = Queue(database)
    await queue.register(job_type())
    [job_id] = await queue.enqueue(new_job())
    await queue.claim()
    assert await put_right(database) == 0
    await connection.execute(change.encode())
    assert await queue.claimed() == []
    assert await put_right(database) == 1
    assert [each.reason for each in (await _job(connection, job_id)).attempts] == [reason]
    [again] = await queue.claim()
    assert (again.job_id, again.attempt) == (job_id, 2)
    assert await put_right(database) == 0


async def test_a_live_attempt_is_left_alone(
    database: Database, connection: AsyncConnection[DictRow]
) -> None:
    job_id = await running_job(connection)
    assert await put_right(database) == 0
    assert (await _job(connection, job_id)).status is Status.PROCESSING


async def test_all_of_them_are_put_right(
    database: Database, connection: AsyncConnection[DictRow]
) -> None:
    await ended_jobs(connection, 3, status="processing", ago=_MINUTE)
    await ended_jobs(connection, 9)
    await running_job(connection)
    assert await put_right(database) == 3


async def _silent(
    database: Database, connection: AsyncConnection[DictRow], monkeypatch: pytest.MonkeyPatch
) -> SilentAttempts:
    clock = iter([0.0])
    monkeypatch.setattr(stuck, "monotonic", lambda: next(clock, 1000.0))
    await register(
        connection, job_type(heartbeatTimeoutSeconds=300), job_type("test/without-timeout")
    )
    return SilentAttempts(database)


async def test_a_silent_attempt_is_lost(
    database: Database, connection: AsyncConnection[DictRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = await _silent(database, connection, monkeypatch)
    never_beat, stopped, beating = [await running_job(connection) for _ in range(3)]
    young = await running_job(connection, ran=4 * _MINUTE)
    without = await running_job(connection, type_="test/without-timeout")
    await connection.execute(
        "INSERT INTO hybridjobs.job_heartbeats (job_id, attempt, beat_at) "
        "VALUES (%s, 1, now() - interval '6 minutes'), (%s, 1, now())",
        [stopped, beating],
    )
    assert await silent.end() == 2
    for job_id in (never_beat, stopped):
        job = await _job(connection, job_id)
        assert (job.status, job.outcome_reason, job.retry_count) == (
            Status.QUEUED,
            "HeartbeatLost",
            0,
        )
        assert job.attempts[0].outcome == "lost"
    for job_id in (beating, young, without):
        assert (await _job(connection, job_id)).status is Status.PROCESSING


async def test_silence_counts_only_while_somebody_listens(
    database: Database, connection: AsyncConnection[DictRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = await _silent(database, connection, monkeypatch)
    await running_job(connection)
    now = 299.0
    monkeypatch.setattr(stuck, "monotonic", lambda: now)
    assert await silent.end() == 0
    async with Database("host=127.0.0.1 port=1", size=1, wait_seconds=0.1) as away:
        monkeypatch.setattr(silent, "_database", away)
        with pytest.raises(DatabaseUnavailable):
            await silent.end()
    monkeypatch.setattr(silent, "_database", database)
    now = 299.0 + 299.0
    assert await silent.end() == 0
    now = 299.0 + 301.0
    assert await silent.end() == 1


async def test_the_silence_of_an_attempt_that_was_adopted_counts_from_then(
    database: Database, connection: AsyncConnection[DictRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = await _silent(database, connection, monkeypatch)
    job_id = await running_job(connection)
    adopt = "UPDATE hybridjobs.job_attempts SET claimed_at = now() - %s WHERE job_id = %s"
    await connection.execute(adopt, [4 * _MINUTE, job_id])
    assert await silent.end() == 0
    await connection.execute(adopt, [6 * _MINUTE, job_id])
    assert await silent.end() == 1
