"""Jobs as their readers see them, and rows for HybridJobs that people made by hand."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.model import Status
from hybridjobs.store.conditions import given_conditions
from hybridjobs.store.locks import PATIENCE

_GET = """
SELECT id, type, status, payload::text AS payload, result::text AS result, error,
       retry_count, max_retries, attempt, priority, source, key, created_at, run_at, started_at,
       completed_at, failed_at, duration_ms, deadline_seconds, outcome_reason, error_category,
       cancel_requested_at, namespace, resource_name, parent_id, submitted_by, stage, unique_key,
       unique_while, batch_id, schedule, concurrency_key,
       (SELECT jsonb_agg(target - 'secret')
        FROM jsonb_path_query(callback, '$[*] ? (@.url.type() == "string")') AS target)
           AS callbacks,
       ARRAY(SELECT depends_on FROM hybridjobs.job_dependencies waiting
             WHERE waiting.job_id = job.id ORDER BY depends_on) AS waits_for,
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
# Of JobLine.
LINE_COLUMNS = """
    id, type, status, stage, attempt, priority, source, key, created_at, run_at, started_at,
    completed_at, failed_at, duration_ms, error, outcome_reason"""
_LIST = f"""
SELECT {LINE_COLUMNS}, resource_name FROM hybridjobs.background_jobs
WHERE {{conditions}}
ORDER BY id DESC LIMIT %(limit)s
"""  # noqa: S608 - of constants
_CONDITIONS = {
    "statuses": "status = ANY(%(statuses)s)",
    "type": "type = %(type)s",
    "key": "key = %(key)s",
    "source": "source = %(source)s",
    "batch_id": "batch_id = %(batch_id)s",
    "schedule": "schedule = %(schedule)s",
    "parent_id": "parent_id = %(parent_id)s",
    "since": "created_at >= %(since)s",
    "until": "created_at < %(until)s",
    "before": "id < %(before)s",
}
_RETRY = f"SELECT hybridjobs.retry_failed_job(%s) AS retried FROM {PATIENCE}"  # noqa: S608
# Locked first: what another call has retried meanwhile, or cancelled since, is no longer failed.
_RETRY_FAILED = f"""
WITH failed AS MATERIALIZED (
    SELECT id FROM hybridjobs.background_jobs CROSS JOIN {PATIENCE}
    WHERE id = ANY(%s) AND status = 'failed' ORDER BY id FOR UPDATE OF background_jobs
)
SELECT id FROM failed WHERE hybridjobs.retry_failed_job(id)
"""  # noqa: S608 - of constants


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
    """A row of `background_jobs`. `payload` and `result` are JSON text, exact.

    `stage` says where a queued job waits: ready, scheduled, parked or blocked. `waits_for` are the
    jobs that have yet to end before it may run.
    """

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
    stage: str | None
    unique_key: str | None
    unique_while: str | None
    batch_id: UUID | None
    schedule: str | None
    concurrency_key: str | None
    waits_for: list[UUID]
    progress: dict[str, Any] | None
    callbacks: list[dict[str, Any]] | None
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class JobLine:
    """What listings and followers show of a job."""

    id: UUID
    type: str
    status: Status
    stage: str | None
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
    error: str | None
    outcome_reason: str | None


@dataclass(frozen=True, slots=True)
class JobSummary(JobLine):
    """A line of a listing."""

    resource_name: str | None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list: those for which all hold that are given.

    `since` and `until` bound the time of creation, the end excluded; `before` is the id that the
    page before ended with.
    """

    statuses: tuple[Status, ...] = ()
    type: str | None = None
    key: str | None = None
    source: str | None = None
    batch_id: UUID | None = None
    schedule: str | None = None
    parent_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: UUID | None = None


async def get_job(connection: AsyncConnection[DictRow], job_id: UUID) -> Job | None:
    """The job with all its attempts; None where there is no such row."""
    row = await (await connection.execute(_GET, [job_id])).fetchone()
    if row is None:
        return None
    attempts = await (await connection.execute(_ATTEMPTS, [job_id])).fetchall()
    row["status"] = Status(row["status"])
    return Job(**row, attempts=tuple(Attempt(**attempt) for attempt in attempts))


async def list_jobs(
    connection: AsyncConnection[DictRow], which: JobFilter, *, limit: int
) -> list[JobSummary]:
    """A page of jobs in descending order of their ids: the newest first."""
    values = {**asdict(which), "statuses": [status.value for status in which.statuses] or None}
    conditions, given = given_conditions(_CONDITIONS, values)
    cursor = await connection.execute(
        _LIST.format(conditions=conditions), {**given, "limit": limit}
    )
    rows = await cursor.fetchall()
    return [JobSummary(**{**row, "status": Status(row["status"])}) for row in rows]


async def retry_job(connection: AsyncConnection[DictRow], job_id: UUID) -> bool:
    """Run a failed or cancelled job once more, also beyond its retries. False: that cannot be.

    The job is in another state or unknown, its last attempt still open, or its unique key taken.
    """
    row = await (await connection.execute(_RETRY, [job_id])).fetchone()
    return row is not None and bool(row["retried"])


async def retry_failed_jobs(
    connection: AsyncConnection[DictRow], job_ids: Sequence[UUID]
) -> list[UUID]:
    """As `retry_job`, of those that are failed, and not cancelled; returns which it was."""
    cursor = await connection.execute(_RETRY_FAILED, [list(job_ids)])
    return [row["id"] for row in await cursor.fetchall()]
