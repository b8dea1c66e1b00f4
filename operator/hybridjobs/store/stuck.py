"""Nothing stays claimed or `processing` without a live attempt.

Two ways to come to that: a row whose attempt is gone, as after a change by hand, and an attempt
that is open while its program has fallen silent.
"""

from dataclasses import replace
from time import monotonic
from uuid import UUID

import structlog
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.errors import DatabaseUnavailable, RowLocked
from hybridjobs.model import AttemptEnd, Outcome
from hybridjobs.store.database import Database
from hybridjobs.store.outcome import record_outcome

log = structlog.get_logger(__name__)

# A half for each of the two indexes.
_ORPHANS = """
SELECT job.id FROM (
    SELECT id FROM hybridjobs.background_jobs WHERE status = 'processing'
    UNION ALL
    SELECT id FROM hybridjobs.background_jobs WHERE status = 'queued' AND stage IS NULL
) job
WHERE NOT EXISTS (SELECT FROM hybridjobs.job_attempts attempt
                  WHERE attempt.job_id = job.id AND attempt.ended_at IS NULL)
ORDER BY job.id LIMIT 1000
"""
# One that somebody holds is about to change; the next round finds it.
_LOCK = """
SELECT greatest(job.attempt, 1) AS attempt, job.result::text AS result
FROM hybridjobs.background_jobs job
WHERE job.id = %(job_id)s
  AND (job.status = 'processing' OR job.status = 'queued' AND job.stage IS NULL)
FOR UPDATE SKIP LOCKED
"""
_LAST_END = """
SELECT outcome, coalesce(reason, 'SetByHand') AS reason, message, exit_code, started_at, ended_at
FROM hybridjobs.job_attempts WHERE job_id = %(job_id)s AND attempt = %(attempt)s
"""
_REOPEN = """
WITH job AS (
    UPDATE hybridjobs.background_jobs SET attempt = %(attempt)s WHERE id = %(job_id)s
    RETURNING id, deadline_seconds, started_at
)
INSERT INTO hybridjobs.job_attempts (job_id, attempt, runner, deadline_seconds, started_at)
SELECT id, %(attempt)s, 'pod', coalesce(deadline_seconds, 900), started_at FROM job
ON CONFLICT (job_id, attempt) DO UPDATE SET ended_at = NULL, outcome = NULL
"""
_SILENT = """
SELECT attempt.job_id, attempt.attempt,
       (job_type.spec->>'heartbeatTimeoutSeconds')::int AS timeout_seconds
FROM hybridjobs.job_attempts attempt
JOIN hybridjobs.background_jobs job ON job.id = attempt.job_id
JOIN hybridjobs.job_types job_type ON job_type.type = job.type
LEFT JOIN hybridjobs.job_heartbeats beat
     ON beat.job_id = attempt.job_id AND beat.attempt = attempt.attempt
WHERE attempt.ended_at IS NULL AND attempt.runner = 'pod'
  AND (job_type.spec->>'heartbeatTimeoutSeconds')::int <= %(listened_seconds)s
  AND greatest(attempt.started_at, beat.beat_at)
      < now() - make_interval(secs => (job_type.spec->>'heartbeatTimeoutSeconds')::int)
  -- One that was adopted after a restore has run for longer, and nobody could take its beats.
  AND attempt.claimed_at
      < now() - make_interval(secs => (job_type.spec->>'heartbeatTimeoutSeconds')::int)
ORDER BY attempt.job_id LIMIT 100
"""
_OUTCOMES = frozenset(Outcome)
_GONE = AttemptEnd(Outcome.LOST, "AttemptMissing", "the job had no attempt that was open")


async def put_right(database: Database) -> int:
    """Move on the rows that are at work without an open attempt; returns how many were.

    What the last attempt ended in follows for the job once more; one without any attempt, or with
    an end that means nothing to us, is lost.
    """
    async with database.connection() as connection:
        orphans = await (await connection.execute(_ORPHANS)).fetchall()
    changed = 0
    for row in orphans:
        async with database.transaction() as connection:
            changed += await _put_right(connection, row["id"])
    return changed


async def _put_right(connection: AsyncConnection[DictRow], job_id: UUID) -> bool:
    row = await (await connection.execute(_LOCK, {"job_id": job_id})).fetchone()
    if row is None:
        return False
    names = {"job_id": job_id, "attempt": row["attempt"]}
    last = await (await connection.execute(_LAST_END, names)).fetchone()
    if last is not None and last["outcome"] is None:
        return False
    if last is None or last["outcome"] not in _OUTCOMES:
        end = _GONE
    else:
        end = AttemptEnd(**{**last, "outcome": Outcome(last["outcome"])})
        end = replace(end, result=row["result"])
    await connection.execute(_REOPEN, names)
    recorded = await record_outcome(connection, job_id, row["attempt"], end)
    assert recorded is not None
    log.error("had no open attempt", job_id=str(job_id), end=end.reason, now=recorded.status)
    return recorded.changed


class SilentAttempts:
    """Ends attempts that were silent for longer than their type's heartbeatTimeoutSeconds allows.

    Silence counts only from when this process began to listen, and anew after the database was
    away: a heartbeat that nobody could take was not missed by the attempt.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listening_since = monotonic()

    async def end(self) -> int:
        """End those that are due; returns how many."""
        try:
            return await self._end(monotonic() - self._listening_since)
        except DatabaseUnavailable:
            self._listening_since = monotonic()
            raise

    async def _end(self, listened_seconds: float) -> int:
        async with self._database.connection() as connection:
            cursor = await connection.execute(_SILENT, {"listened_seconds": listened_seconds})
            silent = await cursor.fetchall()
        ended = 0
        for row in silent:
            end = AttemptEnd(
                Outcome.LOST, "HeartbeatLost", f"no heartbeat for {row['timeout_seconds']} s"
            )
            try:
                async with self._database.transaction() as connection:
                    recorded = await record_outcome(connection, row["job_id"], row["attempt"], end)
            except RowLocked:
                continue  # the next round finds it again
            if recorded is not None and recorded.changed:
                ended += 1
                log.warning("heartbeat lost", job_id=str(row["job_id"]), attempt=row["attempt"])
        return ended
