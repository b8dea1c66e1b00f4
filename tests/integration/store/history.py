"""Jobs that are over or run, as statistics, retention and stuck detection find them."""

from datetime import timedelta
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.ids import new_id

_INSERT = """
WITH job AS (
    INSERT INTO hybridjobs.background_jobs
        (id, type, status, attempt, created_at, started_at, completed_at, failed_at)
    SELECT hybridjobs.uuidv7_at(ended_at - %(took)s), %(type)s, %(status)s, 1, ended_at - %(took)s,
           ended_at - %(took)s, CASE WHEN %(status)s = 'completed' THEN ended_at END,
           CASE WHEN %(status)s = 'failed' THEN ended_at END
    FROM (SELECT now() - %(ago)s - place * %(apart)s::interval AS ended_at
          FROM generate_series(0, %(count)s - 1) AS place) AS moment
    RETURNING id, started_at
)
INSERT INTO hybridjobs.job_attempts
    (job_id, attempt, runner, deadline_seconds, claimed_at, started_at, ended_at, outcome, reason,
     spent_retry)
SELECT id, 1, %(runner)s, 900, started_at, started_at, started_at + %(took)s, %(outcome)s,
       %(reason)s, false
FROM job RETURNING job_id
"""
_RUNNING = """
WITH job AS (
    INSERT INTO hybridjobs.background_jobs
        (id, type, status, attempt, started_at, dispatched_at)
    VALUES (%(id)s, %(type)s, 'processing', 1, now() - %(ran)s, now())
), attempt AS (
    INSERT INTO hybridjobs.job_attempts
        (job_id, attempt, runner, deadline_seconds, claimed_at, started_at)
    VALUES (%(id)s, 1, 'pod', %(deadline_seconds)s, now() - %(ran)s, now() - %(ran)s)
)
INSERT INTO hybridjobs.job_heartbeats (job_id, attempt, beat_at)
SELECT %(id)s, 1, now() - %(silent)s::interval WHERE %(silent)s::interval IS NOT NULL
"""
_OUTCOMES = {"completed": "succeeded", "failed": "failed", "cancelled": "cancelled"}


async def ended_jobs(
    connection: AsyncConnection[DictRow],
    count: int = 1,
    *,
    type_: str = "test/long",
    status: str = "completed",
    outcome: str | None = None,
    reason: str | None = None,
    runner: str = "pod",
    took: timedelta = timedelta(seconds=2),
    ago: timedelta = timedelta(0),
    apart: timedelta = timedelta(0),
) -> list[UUID]:
    """Insert jobs that ended `ago`, each `apart` from the one before; their ids."""
    parameters = {
        "count": count,
        "type": type_,
        "status": status,
        "outcome": outcome or _OUTCOMES.get(status, "over_budget"),
        "reason": reason,
        "runner": runner,
        "took": took,
        "ago": ago,
        "apart": apart,
    }
    cursor = await connection.execute(_INSERT, parameters)
    return [row["job_id"] for row in await cursor.fetchall()]


async def running_job(
    connection: AsyncConnection[DictRow],
    *,
    type_: str = "test/long",
    ran: timedelta = timedelta(minutes=10),
    silent: timedelta | None = None,
    deadline_seconds: int = 3600,
) -> UUID:
    """Insert a job whose pod has run for so long, its last heartbeat `silent` ago; its id."""
    job_id = new_id()
    parameters = {
        "id": job_id,
        "type": type_,
        "ran": ran,
        "silent": silent,
        "deadline_seconds": deadline_seconds,
    }
    await connection.execute(_RUNNING, parameters)
    return job_id


async def rows_of(connection: AsyncConnection[DictRow], view: str) -> list[DictRow]:
    """What a view, table or function without parameters has."""
    cursor = await connection.execute(f"SELECT * FROM hybridjobs.{view}".encode())
    return await cursor.fetchall()
