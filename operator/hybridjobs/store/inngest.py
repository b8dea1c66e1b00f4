"""Jobs of Inngest's runs: how they stand, and their ends until Inngest has been told of them.

A run's jobs have the source "inngest" and the run's id for their key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.model import Status
from hybridjobs.store.outcome import request_cancel

SOURCE = "inngest"

_JOB = """
SELECT id, status, result::text AS result, error, outcome_reason AS reason, duration_ms
FROM hybridjobs.background_jobs
WHERE source = 'inngest' AND key = %(run_id)s AND type = %(type)s
"""
_JOBS = """
SELECT id FROM hybridjobs.background_jobs WHERE source = 'inngest' AND key = %s ORDER BY id
"""
_TELL_AGAIN = """
INSERT INTO hybridjobs.inngest_endings (job_id)
SELECT id FROM hybridjobs.background_jobs
WHERE source = 'inngest' AND key = %(run_id)s AND type = %(type)s
  AND inngest_run_id IS NOT NULL AND status IN ('completed', 'failed', 'cancelled')
ON CONFLICT (job_id) DO UPDATE SET due_at = now(), sends = 0
"""
# A lease rather than a lock: what is sent over the network must not hold a transaction open.
_CLAIM = """
WITH due AS (
    SELECT job_id FROM hybridjobs.inngest_endings WHERE due_at <= now()
    ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE hybridjobs.inngest_endings ending SET sends = sends + 1, due_at = now() + %(lease)s
    FROM due WHERE ending.job_id = due.job_id
    RETURNING ending.job_id, ending.sends, ending.due_at
)
SELECT claimed.job_id, claimed.sends, claimed.due_at, job.inngest_run_id AS run_id, job.type,
       job.status, job.error, job.outcome_reason AS reason, job.duration_ms, job.attempt,
       CASE WHEN octet_length(job.result::text) <= %(max_result_bytes)s THEN job.result::text END
           AS result,
       coalesce(octet_length(job.result::text) > %(max_result_bytes)s, false) AS result_omitted
FROM claimed JOIN hybridjobs.background_jobs job ON job.id = claimed.job_id
ORDER BY claimed.job_id
"""
# Ended once more in the meantime, it is due at another time.
_SETTLE = """
DELETE FROM hybridjobs.inngest_endings ending
USING unnest(%(job_id)s::uuid[], %(due_at)s::timestamptz[]) AS sent (job_id, due_at)
WHERE ending.job_id = sent.job_id AND ending.due_at = sent.due_at
"""
_POSTPONE = """
UPDATE hybridjobs.inngest_endings ending SET due_at = now() + failed.after
FROM unnest(%(job_id)s::uuid[], %(due_at)s::timestamptz[], %(after)s::interval[])
     AS failed (job_id, due_at, after)
WHERE ending.job_id = failed.job_id AND ending.due_at = failed.due_at
"""


@dataclass(frozen=True, slots=True)
class RunJob:
    """The job of a run. `result` is JSON text."""

    id: UUID
    status: Status
    result: str | None
    error: str | None
    reason: str | None
    duration_ms: int | None


@dataclass(frozen=True, slots=True)
class Ending:
    """A job's end to tell Inngest of; `due_at` says when the claim lapses.

    `result` is JSON text, left out (`result_omitted`) where it is too large for an event.
    """

    job_id: UUID
    sends: int
    due_at: datetime
    run_id: str
    type: str
    status: Status
    error: str | None
    reason: str | None
    duration_ms: int | None
    attempt: int
    result: str | None
    result_omitted: bool


async def job_of_run(
    connection: AsyncConnection[DictRow], run_id: str, type_: str
) -> RunJob | None:
    """The run's job of that type; None where there is none, or retention has deleted it."""
    cursor = await connection.execute(_JOB, {"run_id": run_id, "type": type_})
    row = await cursor.fetchone()
    return None if row is None else RunJob(**{**row, "status": Status(row["status"])})


async def cancel_jobs_of_run(
    connection: AsyncConnection[DictRow], run_id: str
) -> dict[UUID, Status | None]:
    """Ask every job of the run to end. Their statuses by id; None: it was over already."""
    rows = await (await connection.execute(_JOBS, [run_id])).fetchall()
    return {
        row["id"]: await request_cancel(connection, row["id"], reason="InngestRunCancelled")
        for row in rows
    }


async def tell_again(connection: AsyncConnection[DictRow], run_id: str, type_: str) -> bool:
    """Have the end of the run's job sent, whether or not it has been. False: it has not ended."""
    cursor = await connection.execute(_TELL_AGAIN, {"run_id": run_id, "type": type_})
    return cursor.rowcount > 0


async def claim_endings(
    connection: AsyncConnection[DictRow],
    *,
    limit: int,
    lease: timedelta,
    max_result_bytes: int,
) -> list[Ending]:
    """Ends that are due, nobody else's until the lease is over."""
    parameters = {"limit": limit, "lease": lease, "max_result_bytes": max_result_bytes}
    rows = await (await connection.execute(_CLAIM, parameters)).fetchall()
    return [Ending(**{**row, "status": Status(row["status"])}) for row in rows]


async def settle(connection: AsyncConnection[DictRow], endings: Sequence[Ending]) -> None:
    """These ends need no more sending, unless they have come to be due anew."""
    if endings:
        await connection.execute(_SETTLE, _claims(endings))


async def postpone(
    connection: AsyncConnection[DictRow], endings: Sequence[tuple[Ending, timedelta]]
) -> None:
    """Send each of these ends again after its time."""
    if endings:
        after = [wait for _, wait in endings]
        claims = _claims([ending for ending, _ in endings])
        await connection.execute(_POSTPONE, {**claims, "after": after})


def _claims(endings: Sequence[Ending]) -> dict[str, object]:
    return {
        "job_id": [ending.job_id for ending in endings],
        "due_at": [ending.due_at for ending in endings],
    }
