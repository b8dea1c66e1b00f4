"""Jobs as their readers see them, and rows for HybridJobs that people made by hand."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.model import JobType, Status

_GET = """
SELECT id, type, status, payload::text AS payload, result::text AS result, error,
       retry_count, max_retries, attempt, priority, source, key, created_at, run_at, started_at,
       completed_at, failed_at, duration_ms, deadline_seconds, outcome_reason, error_category,
       cancel_requested_at, namespace, resource_name, parent_id, submitted_by,
       coalesce((SELECT beat.progress FROM hybridjobs.job_heartbeats beat
                 WHERE beat.job_id = job.id AND job.status = 'processing'
                   AND beat.attempt = job.attempt), job.progress) AS progress
FROM hybridjobs.background_jobs job WHERE id = %s
"""
_ATTEMPTS = """
SELECT attempt, runner, claimed_at, dispatched_at, started_at, ended_at, outcome, reason,
       error_category, exit_code, message, spent_retry, pod_name, log_tail, deadline_seconds
FROM hybridjobs.job_attempts WHERE job_id = %s ORDER BY attempt
"""
_LIST = """
SELECT id, type, status, attempt, created_at, started_at, completed_at, failed_at, duration_ms,
       error, outcome_reason, resource_name
FROM hybridjobs.background_jobs
WHERE (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(type)s::text IS NULL OR type = %(type)s)
ORDER BY created_at DESC, id DESC LIMIT %(limit)s
"""
_ADOPT = """
INSERT INTO hybridjobs.background_jobs
    (id, type, payload, source, key, priority, order_key, max_retries, deadline_seconds,
     namespace, resource_name, resource_uid, submitted_by)
VALUES (%(id)s, %(type)s, %(payload)s::json, 'kubernetes', %(uid)s, %(priority)s,
        now() - make_interval(mins => %(priority)s), %(max_retries)s, %(deadline_seconds)s,
        %(namespace)s, %(name)s, %(uid)s, %(submitted_by)s)
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution, as `job_attempts` keeps it."""

    attempt: int
    runner: str
    claimed_at: datetime
    dispatched_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    outcome: str | None
    reason: str | None
    error_category: str | None
    exit_code: int | None
    message: str | None
    spent_retry: bool | None
    pod_name: str | None
    log_tail: str | None
    deadline_seconds: int


@dataclass(frozen=True, slots=True)
class Job:
    """A row of `background_jobs`. `payload` and `result` are JSON text, exact."""

    id: UUID
    type: str
    status: Status
    payload: str
    result: str | None
    error: str | None
    retry_count: int
    max_retries: int
    attempt: int
    priority: int
    source: str
    key: str | None
    created_at: datetime
    run_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    failed_at: datetime | None
    duration_ms: int | None
    deadline_seconds: int | None
    outcome_reason: str | None
    error_category: str | None
    cancel_requested_at: datetime | None
    namespace: str | None
    resource_name: str | None
    parent_id: UUID | None
    submitted_by: str | None
    progress: dict[str, Any] | None
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class JobSummary:
    """A line of a listing."""

    id: UUID
    type: str
    status: Status
    attempt: int
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    failed_at: datetime | None
    duration_ms: int | None
    error: str | None
    outcome_reason: str | None
    resource_name: str | None


async def get_job(connection: AsyncConnection[DictRow], job_id: UUID) -> Job | None:
    """The job with all its attempts; None where there is no such row."""
    row = await (await connection.execute(_GET, [job_id])).fetchone()
    if row is None:
        return None
    attempts = await (await connection.execute(_ATTEMPTS, [job_id])).fetchall()
    row["status"] = Status(row["status"])
    return Job(**row, attempts=tuple(Attempt(**attempt) for attempt in attempts))


async def list_jobs(
    connection: AsyncConnection[DictRow],
    *,
    status: Status | None = None,
    type_: str | None = None,
    limit: int = 50,
) -> list[JobSummary]:
    """The newest jobs first."""
    cursor = await connection.execute(_LIST, {"status": status, "type": type_, "limit": limit})
    rows = await cursor.fetchall()
    return [JobSummary(**{**row, "status": Status(row["status"])}) for row in rows]


async def adopt_job(
    connection: AsyncConnection[DictRow],
    job_id: UUID,
    job_type: JobType,
    *,
    payload: str,
    namespace: str,
    name: str,
    uid: str,
    priority: int | None,
    deadline_seconds: int | None,
    submitted_by: str | None,
) -> None:
    """Make the row of a HybridJob that came by kubectl; a second time changes nothing."""
    spec = job_type.spec
    await connection.execute(
        _ADOPT,
        {
            "id": job_id,
            "type": spec.type,
            "payload": payload,
            "uid": uid,
            "priority": spec.priority if priority is None else priority,
            "max_retries": spec.retry.limit,
            "deadline_seconds": deadline_seconds or spec.deadline_seconds,
            "namespace": namespace,
            "name": name,
            "submitted_by": submitted_by,
        },
    )
