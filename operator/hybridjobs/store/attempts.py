"""What happens while an attempt is open. Every write names (job, attempt) and requires it open."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs import codec
from hybridjobs.errors import AttemptClosed
from hybridjobs.model import Status
from hybridjobs.store.locks import LOCKED_JOB, PATIENCE

_READ = """
SELECT job.id AS job_id, job.type, job.status, job.payload::text AS payload,
       job.cancel_requested_at IS NOT NULL AS cancel_requested, job.error, job.run_at,
       job.resource_name, job.resource_uid, job.traceparent, job.started_at, job.outcome_reason,
       job.duration_ms, coalesce(job.completed_at, job.failed_at) AS finished_at, job.attempt,
       CASE WHEN last.attempt IS NOT NULL AND last.ended_at IS NULL THEN last.attempt END
           AS open_attempt,
       coalesce(last.deadline_seconds, job.deadline_seconds) AS deadline_seconds,
       last.claimed_at, last.started_at AS attempt_started_at, last.ended_at AS attempt_ended_at,
       last.hybridjob_uid, last.job_uid, last.pod_name, last.exit_code, last.reported,
       last.log_tail IS NOT NULL AS has_log
FROM hybridjobs.background_jobs job
LEFT JOIN hybridjobs.job_attempts last ON last.job_id = job.id AND last.attempt = job.attempt
WHERE job.id = %s
"""
# Like every statement that writes both, it takes the job's row before the attempt's. What stands
# for the row is noted here too: a dispatcher killed after its create never comes to say so.
_BIND_HYBRIDJOB = f"""
WITH job AS ({LOCKED_JOB}), bound AS (
    UPDATE hybridjobs.job_attempts attempt
    SET hybridjob_uid = coalesce(attempt.hybridjob_uid, %(uid)s),
        dispatched_at = coalesce(attempt.dispatched_at, now())
    FROM job
    WHERE attempt.job_id = job.id AND attempt.attempt = %(attempt)s AND attempt.ended_at IS NULL
    RETURNING attempt.job_id, attempt.hybridjob_uid
), noted AS (
    UPDATE hybridjobs.background_jobs job
    SET namespace = %(namespace)s, resource_name = %(name)s, resource_uid = %(uid)s
    FROM bound
    WHERE job.id = bound.job_id AND bound.hybridjob_uid = %(uid)s AND job.resource_uid IS NULL
)
SELECT hybridjob_uid FROM bound
"""  # noqa: S608 - of constants
_BIND_JOB = f"""
UPDATE hybridjobs.job_attempts SET job_uid = coalesce(job_uid, %(uid)s) FROM {PATIENCE}
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND ended_at IS NULL
RETURNING job_uid
"""  # noqa: S608 - of constants
_START = f"""
WITH job AS ({LOCKED_JOB}), started AS (
    UPDATE hybridjobs.job_attempts attempt
    SET started_at = coalesce(attempt.started_at, %(started_at)s), pod_name = %(pod_name)s,
        pod_uid = coalesce(attempt.pod_uid, %(pod_uid)s)
    FROM job
    WHERE attempt.job_id = job.id AND attempt.attempt = %(attempt)s AND attempt.ended_at IS NULL
      AND coalesce(attempt.pod_uid, %(pod_uid)s) = %(pod_uid)s
    RETURNING attempt.job_id, attempt.started_at
)
UPDATE hybridjobs.background_jobs job
SET status = 'processing', started_at = started.started_at, changed_in = pg_current_xact_id()
FROM started WHERE job.id = started.job_id
RETURNING job.id
"""  # noqa: S608 - of constants
_SAVE_CHECKPOINT = f"""
INSERT INTO hybridjobs.job_checkpoints (job_id, attempt, data)
SELECT job_id, attempt, %(data)s::jsonb FROM hybridjobs.job_attempts CROSS JOIN {PATIENCE}
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND ended_at IS NULL
ON CONFLICT (job_id) DO UPDATE
SET attempt = excluded.attempt, data = excluded.data, saved_at = clock_timestamp()
WHERE job_checkpoints.attempt <= excluded.attempt
RETURNING job_id
"""  # noqa: S608 - of constants
_OPEN = """
SELECT job.payload::text AS payload, job.type, checkpoint.data::text AS checkpoint
FROM hybridjobs.job_attempts attempt
JOIN hybridjobs.background_jobs job ON job.id = attempt.job_id
LEFT JOIN hybridjobs.job_checkpoints checkpoint ON checkpoint.job_id = job.id
WHERE attempt.job_id = %(job_id)s AND attempt.attempt = %(attempt)s AND attempt.ended_at IS NULL
"""
_REPORT = f"""
UPDATE hybridjobs.job_attempts SET reported = %(reported)s::jsonb FROM {PATIENCE}
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND ended_at IS NULL
RETURNING job_id
"""  # noqa: S608 - of constants
_EXPIRED_LEASES = """
SELECT job_id, attempt FROM hybridjobs.job_attempts
WHERE ended_at IS NULL AND lease_until < now()
ORDER BY lease_until LIMIT 100
"""
_OPEN_DISPATCHED = """
SELECT attempt.job_id, attempt.attempt, attempt.hybridjob_uid, attempt.job_uid, job.resource_name,
       job.cancel_requested_at IS NOT NULL AS cancel_requested,
       attempt.dispatched_at < now() - %(settled)s AS settled
FROM hybridjobs.job_attempts attempt
JOIN hybridjobs.background_jobs job ON job.id = attempt.job_id
WHERE attempt.ended_at IS NULL AND attempt.runner = 'pod' AND attempt.dispatched_at IS NOT NULL
  AND (attempt.job_id, attempt.attempt) > (%(job_id)s, %(attempt)s)
  AND job.id >= %(job_id)s  -- follows, but without it a merge join begins with the first job
ORDER BY attempt.job_id, attempt.attempt LIMIT %(limit)s
"""
_ENDED = """
SELECT attempt.job_id, attempt.attempt, attempt.ended_at IS NOT NULL AS ended
FROM unnest(%(job_ids)s::uuid[], %(attempts)s::int4[]) AS asked (job_id, attempt)
JOIN hybridjobs.job_attempts attempt USING (job_id, attempt)
"""
_STATUSES = """
SELECT id, status FROM hybridjobs.background_jobs WHERE id = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class JobState:
    """A job and its last attempt, as the operator needs them.

    `open_attempt` is that attempt's number while it is open, None once it has ended; `attempt` 0
    and the fields from `claimed_at` on None (has_log False) before the first.
    """

    job_id: UUID
    type: str
    status: Status
    payload: str
    cancel_requested: bool
    error: str | None
    run_at: datetime
    resource_name: str | None
    resource_uid: str | None
    traceparent: str | None
    started_at: datetime | None
    outcome_reason: str | None
    duration_ms: int | None
    finished_at: datetime | None
    attempt: int
    open_attempt: int | None
    deadline_seconds: int
    claimed_at: datetime | None = None
    attempt_started_at: datetime | None = None
    attempt_ended_at: datetime | None = None
    hybridjob_uid: str | None = None
    job_uid: str | None = None
    pod_name: str | None = None
    exit_code: int | None = None
    reported: dict[str, Any] | None = None
    has_log: bool = False


@dataclass(frozen=True, slots=True)
class OpenDispatch:
    """An open attempt that should have a HybridJob; `settled`: a list made now must show it."""

    job_id: UUID
    attempt: int
    hybridjob_uid: str | None
    job_uid: str | None
    resource_name: str | None
    cancel_requested: bool
    settled: bool


async def read_job(connection: AsyncConnection[DictRow], job_id: UUID) -> JobState | None:
    """The job and its last attempt; None where there is no such row."""
    row = await (await connection.execute(_READ, [job_id])).fetchone()
    return None if row is None else JobState(**{**row, "status": Status(row["status"])})


async def bind_hybridjob(
    connection: AsyncConnection[DictRow],
    job_id: UUID,
    attempt: int,
    *,
    namespace: str,
    name: str,
    uid: str,
) -> str:
    """Record which HybridJob stands for the attempt; the uid of the first one wins, and returns."""
    row = await _guarded(
        connection, _BIND_HYBRIDJOB, job_id, attempt, namespace=namespace, name=name, uid=uid
    )
    return str(row["hybridjob_uid"])


async def bind_kubernetes_job(
    connection: AsyncConnection[DictRow], job_id: UUID, attempt: int, uid: str
) -> str:
    """Record which Kubernetes Job runs the attempt; the first one wins and is returned."""
    row = await _guarded(connection, _BIND_JOB, job_id, attempt, uid=uid)
    return str(row["job_uid"])


async def start(
    connection: AsyncConnection[DictRow],
    job_id: UUID,
    attempt: int,
    *,
    pod_name: str,
    pod_uid: str,
    started_at: datetime,
) -> None:
    """The container runs: the job is `processing`. Another pod than the first one is fenced."""
    await _guarded(
        connection,
        _START,
        job_id,
        attempt,
        pod_name=pod_name,
        pod_uid=pod_uid,
        started_at=started_at,
    )


async def save_checkpoint(
    connection: AsyncConnection[DictRow], job_id: UUID, attempt: int, data: str
) -> None:
    """Keep JSON text for the attempts that follow."""
    await _guarded(connection, _SAVE_CHECKPOINT, job_id, attempt, data=data)


async def payload_of(connection: AsyncConnection[DictRow], job_id: UUID, attempt: int) -> str:
    """The job's payload as JSON text."""
    return str((await _guarded(connection, _OPEN, job_id, attempt))["payload"])


async def checkpoint_of(
    connection: AsyncConnection[DictRow], job_id: UUID, attempt: int
) -> str | None:
    """The last checkpoint of this or an earlier attempt as JSON text."""
    checkpoint: str | None = (await _guarded(connection, _OPEN, job_id, attempt))["checkpoint"]
    return checkpoint


async def report_failure(
    connection: AsyncConnection[DictRow],
    job_id: UUID,
    attempt: int,
    *,
    error: str,
    permanent: bool,
    retry_after_seconds: float | None,
) -> None:
    """Note the worker's account of its failure, to be read when the pod has ended."""
    reported = {"error": error, "permanent": permanent, "retryAfter": retry_after_seconds}
    await _guarded(connection, _REPORT, job_id, attempt, reported=codec.dumps(reported))


async def expired_leases(connection: AsyncConnection[DictRow]) -> list[tuple[UUID, int]]:
    """Inline attempts whose process must be dead; at most 100 a call."""
    cursor = await connection.execute(_EXPIRED_LEASES)
    return [(row["job_id"], row["attempt"]) for row in await cursor.fetchall()]


async def open_dispatches(
    connection: AsyncConnection[DictRow],
    *,
    settled: timedelta,
    after: tuple[UUID, int] = (UUID(int=0), 0),
    limit: int = 1000,
) -> list[OpenDispatch]:
    """The next open attempts with a confirmed HybridJob, by job and attempt.

    `settled` is how long ago it must have been confirmed for a list to show it.
    """
    job_id, attempt = after
    parameters = {"settled": settled, "job_id": job_id, "attempt": attempt, "limit": limit}
    cursor = await connection.execute(_OPEN_DISPATCHED, parameters)
    return [OpenDispatch(**row) for row in await cursor.fetchall()]


async def have_ended(
    connection: AsyncConnection[DictRow], attempts: Sequence[tuple[UUID, int]]
) -> dict[tuple[UUID, int], bool]:
    """Of each of these attempts that has a row, whether it has ended."""
    parameters = {
        "job_ids": [job_id for job_id, _ in attempts],
        "attempts": [attempt for _, attempt in attempts],
    }
    cursor = await connection.execute(_ENDED, parameters)
    return {(row["job_id"], row["attempt"]): row["ended"] for row in await cursor.fetchall()}


async def statuses(
    connection: AsyncConnection[DictRow], job_ids: Iterable[UUID]
) -> dict[UUID, Status]:
    """The status of each of these jobs that has a row."""
    cursor = await connection.execute(_STATUSES, [list(job_ids)])
    return {row["id"]: Status(row["status"]) for row in await cursor.fetchall()}


async def _guarded(
    connection: AsyncConnection[DictRow],
    statement: str,
    job_id: UUID,
    attempt: int,
    **parameters: object,
) -> DictRow:
    cursor = await connection.execute(
        statement.encode(), {"job_id": job_id, "attempt": attempt, **parameters}
    )
    row = await cursor.fetchone()
    if row is None:
        raise AttemptClosed(job_id, attempt)
    return row
