"""How the queue stands for people: what is paused, what waits, and what schedules did last."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow, class_row

from hybridjobs.model import Decision

_PAUSE = "SELECT hybridjobs.pause_queue(%s)"
_RESUME = "SELECT hybridjobs.resume_queue()"
_PAUSE_TYPE = "SELECT hybridjobs.pause_type(%s, %s) AS done"
_RESUME_TYPE = "SELECT hybridjobs.resume_type(%s) AS done"
_PAUSED = "SELECT paused_at, paused_by FROM hybridjobs.queue_settings"
_LINES = """
WITH waiting AS (
    SELECT type, sum(jobs)::bigint AS jobs FROM (
        SELECT type, count(*) AS jobs FROM hybridjobs.background_jobs
        WHERE stage = 'ready' GROUP BY type
        UNION ALL
        SELECT type, count(*) FROM hybridjobs.background_jobs
        WHERE stage = 'parked' GROUP BY type) AS due
    GROUP BY type
), running AS (
    SELECT job.type, count(*) AS jobs
    FROM hybridjobs.job_attempts attempt
    JOIN hybridjobs.background_jobs job ON job.id = attempt.job_id
    WHERE attempt.ended_at IS NULL GROUP BY job.type
)
SELECT job_type.type, coalesce(job_type.paused_at, queue.paused_at) AS paused_at,
       coalesce(job_type.paused_by, queue.paused_by) AS paused_by,
       coalesce(waiting.jobs, 0) AS waiting, coalesce(running.jobs, 0) AS running
FROM hybridjobs.job_types job_type
CROSS JOIN hybridjobs.queue_settings queue
LEFT JOIN waiting USING (type)
LEFT JOIN running USING (type)
WHERE job_type.deleted_at IS NULL
"""
_PAUSED_TYPES = """
SELECT type FROM hybridjobs.job_types
WHERE deleted_at IS NULL
  AND (paused_at IS NOT NULL
       OR EXISTS (SELECT FROM hybridjobs.queue_settings WHERE paused_at IS NOT NULL))
"""
_SCHEDULES = """
SELECT last.schedule AS name, last.tick_at, last.decision, last.decided_at, last.job_id,
       (SELECT count(*) FROM hybridjobs.background_jobs job
        WHERE job.schedule = last.schedule AND job.status IN ('queued', 'processing')) AS open_jobs
FROM (SELECT DISTINCT ON (schedule) schedule, tick_at, decision, decided_at, job_id
      FROM hybridjobs.schedule_ticks ORDER BY schedule, tick_at DESC) AS last
ORDER BY last.schedule
"""
# The first of the lines' heads, and of the scheduled jobs whose time has come since the last claim.
_NEXT = """
SELECT job.id FROM hybridjobs.job_types job_type
CROSS JOIN LATERAL (
    (SELECT id, order_key FROM hybridjobs.background_jobs
     WHERE stage = 'ready' AND type = job_type.type AND run_at <= now()
     ORDER BY order_key, id LIMIT 1)
    UNION ALL
    (SELECT due.id, due.order_key
     FROM (SELECT id, type, order_key FROM hybridjobs.background_jobs
           WHERE stage = 'scheduled' AND run_at <= now() ORDER BY run_at LIMIT 100) AS due
     WHERE due.type = job_type.type)
) job
WHERE job_type.deleted_at IS NULL AND job_type.paused_at IS NULL
  AND NOT EXISTS (SELECT FROM hybridjobs.queue_settings WHERE paused_at IS NOT NULL)
ORDER BY job.order_key, job.id LIMIT 1
"""
_MAKE_DUE = """
UPDATE hybridjobs.background_jobs
SET stage = 'ready', run_at = now(), order_key = now() - make_interval(mins => priority)
WHERE id = %s AND stage = 'scheduled'
"""


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when no job starts, and who asked for that."""

    paused_at: datetime
    paused_by: str | None


@dataclass(frozen=True, slots=True)
class TypeLine:
    """A type's jobs that are due and `waiting`, and its open attempts.

    A pause of the whole queue is one of each type.
    """

    type: str
    paused_at: datetime | None
    paused_by: str | None
    waiting: int
    running: int


@dataclass(frozen=True, slots=True)
class ScheduleLine:
    """A schedule's last decided tick, and how many jobs of it are open."""

    name: str
    tick_at: datetime
    decision: Decision
    decided_at: datetime
    job_id: UUID | None
    open_jobs: int


async def pause_queue(connection: AsyncConnection[DictRow], *, by: str) -> None:
    """No job of any type starts; what runs goes on. Who paused first stays on record."""
    await connection.execute(_PAUSE, [by])


async def resume_queue(connection: AsyncConnection[DictRow]) -> None:
    """Jobs start again, but for those of types that are paused themselves."""
    await connection.execute(_RESUME)


async def pause_type(connection: AsyncConnection[DictRow], type_: str, *, by: str) -> bool:
    """No job of the type starts; what runs goes on. False: there is no such type."""
    row = await (await connection.execute(_PAUSE_TYPE, [type_, by])).fetchone()
    return row is not None and bool(row["done"])


async def resume_type(connection: AsyncConnection[DictRow], type_: str) -> bool:
    """Jobs of the type start again, unless the queue is paused. False: there is no such type."""
    row = await (await connection.execute(_RESUME_TYPE, [type_])).fetchone()
    return row is not None and bool(row["done"])


async def queue_pause(connection: AsyncConnection[DictRow]) -> Pause | None:
    """The pause of the whole queue; None: it is not paused."""
    row = await (await connection.execute(_PAUSED)).fetchone()
    return None if row is None or row["paused_at"] is None else Pause(**row)


async def paused_types(connection: AsyncConnection[DictRow]) -> list[str]:
    """The types of which no job starts: each is paused, or the whole queue is."""
    cursor = await connection.execute(_PAUSED_TYPES)
    return [row["type"] for row in await cursor.fetchall()]


async def type_lines(connection: AsyncConnection[DictRow]) -> dict[str, TypeLine]:
    """How each type stands, by its name."""
    async with connection.cursor(row_factory=class_row(TypeLine)) as cursor:
        return {line.type: line for line in await (await cursor.execute(_LINES)).fetchall()}


async def schedule_lines(connection: AsyncConnection[DictRow]) -> list[ScheduleLine]:
    """Every schedule that has a decided tick on record, by name."""
    cursor = await connection.execute(_SCHEDULES)
    return [
        ScheduleLine(**{**row, "decision": Decision(row["decision"])})
        for row in await cursor.fetchall()
    ]


async def next_in_line(connection: AsyncConnection[DictRow]) -> UUID | None:
    """The job that the next claim takes first, limits aside; None: none may start."""
    row = await (await connection.execute(_NEXT)).fetchone()
    return None if row is None else row["id"]


async def make_due(connection: AsyncConnection[DictRow], job_id: UUID) -> None:
    """A job whose time lies ahead is in line from now on; any other is left as it is."""
    await connection.execute(_MAKE_DUE, [job_id])
