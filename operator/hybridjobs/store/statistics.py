"""What the queue has done and how it stands: each figure is a view or a function in SQL.

They are described in docs/monitoring.md, and made by migrations/R__rollups.sql (the tables that
statistics read instead of the history) and R__statistics.sql.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow, class_row

from hybridjobs.model import Status

_REFRESH = "SELECT hybridjobs.refresh_job_rollups() AS written"
_SUMMARY = "SELECT metric, value FROM hybridjobs.get_job_statistics_summary()"
_TYPES = """
SELECT type, total_jobs::bigint, successful::bigint, failed::bigint, cancelled::bigint,
       attempts::bigint, avg_duration_ms::float8, median_duration_ms, p95_duration_ms,
       max_duration_ms, success_rate::float8 AS success_rate_percent
FROM hybridjobs.times_per_type
"""
_MISPLACED = """
SELECT type, mode, better_mode, runs::bigint, over_budget_percent::float8, p95_seconds::float8,
       budget_seconds::float8
FROM hybridjobs.misplaced_types ORDER BY type
"""
_STATUS = "SELECT status, stage, jobs::bigint FROM hybridjobs.queue_status"
_READY = "SELECT type, jobs::bigint, oldest_seconds FROM hybridjobs.ready_by_type ORDER BY type"
_STUCK = """
SELECT id, type, attempt, runner, reason, started_at, seconds_running::float8, deadline_seconds,
       heartbeat_at, resource_name, pod_name
FROM hybridjobs.stuck_jobs ORDER BY started_at
"""
_HEALTH = """
SELECT status, queue_depth, processing_count, failed_count,
       oldest_queued_job_age_seconds AS oldest_queued_seconds,
       avg_processing_time_seconds AS avg_processing_seconds,
       failure_rate_percent::float8, warnings, errors
FROM hybridjobs.get_queue_health(
    queued_degraded => %(queued_degraded)s, queued_unhealthy => %(queued_unhealthy)s,
    processing_degraded => %(processing_degraded)s,
    oldest_degraded_seconds => %(oldest_degraded_seconds)s,
    oldest_unhealthy_seconds => %(oldest_unhealthy_seconds)s,
    failure_degraded_percent => %(failure_degraded_percent)s,
    failure_unhealthy_percent => %(failure_unhealthy_percent)s)
"""


@dataclass(frozen=True, slots=True)
class Metric:
    """One of the seven figures of the last 24 hours, as text for people."""

    metric: str
    value: str


@dataclass(frozen=True, slots=True)
class TypeStatistics:
    """A type's last 7 days. Durations are those of successful runs, None where there were none.

    `success_rate_percent` is of the jobs that completed or failed.
    """

    type: str
    total_jobs: int
    successful: int
    failed: int
    cancelled: int
    attempts: int
    avg_duration_ms: float | None
    median_duration_ms: float | None
    p95_duration_ms: float | None
    max_duration_ms: int | None
    success_rate_percent: float | None


@dataclass(frozen=True, slots=True)
class MisplacedType:
    """A type that would be better off in the other mode.

    A quick one says how often it overran its budget, a long one how long its runs took.
    """

    type: str
    mode: Literal["quick", "long"]
    better_mode: Literal["quick", "long"]
    runs: int
    over_budget_percent: float | None
    p95_seconds: float | None
    budget_seconds: float


@dataclass(frozen=True, slots=True)
class QueueLine:
    """How many jobs stand at a stage; of those that are over, how many since 24 hours ago."""

    status: Status
    stage: str
    jobs: int


@dataclass(frozen=True, slots=True)
class ReadyLine:
    """A type's jobs in line for a place; the first of them has been due for `oldest_seconds`."""

    type: str
    jobs: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class StuckJob:
    """A job that has run for 5 minutes or more, without a sign of life for as long.

    `reason` is LeaseExpired, OverDeadline, NeverBeat or StoppedBeating.
    """

    id: UUID
    type: str
    attempt: int
    runner: str
    reason: str
    started_at: datetime
    seconds_running: float
    deadline_seconds: int
    heartbeat_at: datetime | None
    resource_name: str | None
    pod_name: str | None


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """Beyond which figures the queue is degraded or unhealthy."""

    queued_degraded: int = 100
    queued_unhealthy: int = 500
    processing_degraded: int = 20
    oldest_degraded_seconds: float = 600
    oldest_unhealthy_seconds: float = 3600
    failure_degraded_percent: float = 10
    failure_unhealthy_percent: float = 50


@dataclass(frozen=True, slots=True)
class QueueHealth:
    """Whether the queue is well. What failed and how long runs took is of the last 24 hours."""

    status: Literal["healthy", "degraded", "unhealthy"]
    queue_depth: int
    processing_count: int
    failed_count: int
    oldest_queued_seconds: float
    avg_processing_seconds: float | None
    failure_rate_percent: float | None
    warnings: list[str]
    errors: list[str]


async def refresh_rollups(connection: AsyncConnection[DictRow]) -> int:
    """Fold the minutes that are over into the roll-ups; returns the rows of job_rollups written."""
    row = await (await connection.execute(_REFRESH)).fetchone()
    return int(row["written"]) if row else 0


async def summary(connection: AsyncConnection[DictRow]) -> list[Metric]:
    """The seven figures of the last 24 hours."""
    async with connection.cursor(row_factory=class_row(Metric)) as cursor:
        return await (await cursor.execute(_SUMMARY)).fetchall()


async def type_statistics(connection: AsyncConnection[DictRow]) -> list[TypeStatistics]:
    """The types that ran within 7 days, the busiest first."""
    async with connection.cursor(row_factory=class_row(TypeStatistics)) as cursor:
        return await (await cursor.execute(_TYPES)).fetchall()


async def misplaced_types(connection: AsyncConnection[DictRow]) -> list[MisplacedType]:
    """Quick types that often overrun their budget, and long ones that would fit it."""
    async with connection.cursor(row_factory=class_row(MisplacedType)) as cursor:
        return await (await cursor.execute(_MISPLACED)).fetchall()


async def queue_status(connection: AsyncConnection[DictRow]) -> list[QueueLine]:
    """Every stage, also those where no job is."""
    cursor = await connection.execute(_STATUS)
    return [
        QueueLine(**{**row, "status": Status(row["status"])}) for row in await cursor.fetchall()
    ]


async def ready_by_type(connection: AsyncConnection[DictRow]) -> list[ReadyLine]:
    """The types of which jobs are in line."""
    async with connection.cursor(row_factory=class_row(ReadyLine)) as cursor:
        return await (await cursor.execute(_READY)).fetchall()


async def stuck_jobs(connection: AsyncConnection[DictRow]) -> list[StuckJob]:
    """The jobs to look at, the oldest first."""
    async with connection.cursor(row_factory=class_row(StuckJob)) as cursor:
        return await (await cursor.execute(_STUCK)).fetchall()


async def queue_health(
    connection: AsyncConnection[DictRow], limits: HealthLimits | None = None
) -> QueueHealth:
    """How well the queue is by `limits`."""
    parameters: dict[str, Any] = asdict(limits or HealthLimits())
    async with connection.cursor(row_factory=class_row(QueueHealth)) as cursor:
        health = await (await cursor.execute(_HEALTH, parameters)).fetchone()
    assert health is not None
    return health
