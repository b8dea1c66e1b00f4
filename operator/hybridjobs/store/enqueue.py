"""Rows come to be here: every job that enters by HTTP, many to a commit."""

from collections.abc import Callable, Sequence

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.model import Enqueued, NewJob, Status
from hybridjobs.store.group_commit import GroupCommit

_COLUMNS = (
    "id",
    "type",
    "payload",
    "source",
    "key",
    "priority",
    "max_retries",
    "deadline_seconds",
    "parent_id",
    "submitted_by",
    "traceparent",
    "inngest_event_id",
    "lease_seconds",
)
_INSERT = """
INSERT INTO hybridjobs.background_jobs
    (id, type, payload, source, key, priority, order_key, max_retries, deadline_seconds,
     parent_id, submitted_by, traceparent, inngest_event_id,
     status, attempt, dispatched_at, started_at)
SELECT id, type, payload::json, source, key, priority,
       now() - make_interval(mins => priority), max_retries, deadline_seconds, parent_id,
       submitted_by, traceparent, inngest_event_id,
       CASE WHEN lease_seconds IS NULL THEN 'queued' ELSE 'processing' END,
       CASE WHEN lease_seconds IS NULL THEN 0 ELSE 1 END,
       CASE WHEN lease_seconds IS NOT NULL THEN now() END,
       CASE WHEN lease_seconds IS NOT NULL THEN now() END
FROM unnest(
    %(id)b::uuid[], %(type)b::text[], %(payload)b::text[], %(source)b::text[], %(key)b::text[],
    %(priority)b::int4[], %(max_retries)b::int4[], %(deadline_seconds)b::int4[],
    %(parent_id)b::uuid[], %(submitted_by)b::text[], %(traceparent)b::text[],
    %(inngest_event_id)b::text[], %(lease_seconds)b::float8[]
) AS input (id, type, payload, source, key, priority, max_retries, deadline_seconds,
            parent_id, submitted_by, traceparent, inngest_event_id, lease_seconds)
ON CONFLICT DO NOTHING
"""
# A job with a lease begins with its row: attempt 1 is inserted by the same statement, so that a
# redelivery can never find a quick job that nobody runs.
_INSERT_BEGUN = f"""
WITH inserted AS (
    {_INSERT}
    RETURNING id
), begun AS (
    INSERT INTO hybridjobs.job_attempts
        (job_id, attempt, runner, type_generation, deadline_seconds, started_at, lease_until)
    SELECT id, 1, 'inline', type_generation, deadline_seconds, now(),
           now() + make_interval(secs => lease_seconds)
    FROM inserted
    JOIN unnest(
        %(id)b::uuid[], %(type_generation)b::int8[], %(deadline_seconds)b::int4[],
        %(lease_seconds)b::float8[]
    ) AS input (id, type_generation, deadline_seconds, lease_seconds) USING (id)
    WHERE lease_seconds IS NOT NULL
)
SELECT id FROM inserted
"""  # noqa: S608 - of constants
_FIND = """
SELECT input.place, job.id, job.status
FROM unnest(%(id)b::uuid[], %(source)b::text[], %(key)b::text[], %(type)b::text[])
     WITH ORDINALITY AS input (id, source, key, type, place)
JOIN hybridjobs.background_jobs job
     ON job.id = input.id
     OR (job.source = input.source AND job.key = input.key AND job.type = input.type)
"""


async def insert_jobs(
    connection: AsyncConnection[DictRow], jobs: Sequence[NewJob]
) -> list[Enqueued]:
    """Insert what is new; one Enqueued a job, in order. Safe to repeat with the same ids.

    One statement writes: in the caller's transaction, or as one of its own. A job whose (source,
    key, type) or id is there already gives that row; two of one call with the same key give one
    row.
    """
    if all(job.lease_seconds is None for job in jobs):
        cursor = await connection.execute(_INSERT, _arrays(jobs, _COLUMNS))
    else:
        cursor = await connection.execute(
            _INSERT_BEGUN.encode(), _arrays(jobs, (*_COLUMNS, "type_generation"))
        )
    if cursor.rowcount == len(jobs):
        return [_new(job) for job in jobs]
    # Some were there already. An id of our own among them was made by this very call, before its
    # connection died.
    cursor = await connection.execute(_FIND, _arrays(jobs, ("id", "source", "key", "type")))
    found = {row["place"]: row for row in await cursor.fetchall()}
    return [
        Enqueued(row["id"], job.type, Status(row["status"]), created=row["id"] == job.id)
        for job, row in ((job, found[place]) for place, job in enumerate(jobs, start=1))
    ]


def _arrays(jobs: Sequence[NewJob], names: Sequence[str]) -> dict[str, list[object] | None]:
    """The jobs' columns; one of nothing but nulls as null, which unnest fills up for less."""
    columns = {name: [getattr(job, name) for job in jobs] for name in names}
    return {
        name: None if values.count(None) == len(values) else values
        for name, values in columns.items()
    }


def _new(job: NewJob) -> Enqueued:
    status = Status.QUEUED if job.lease_seconds is None else Status.PROCESSING
    return Enqueued(job.id, job.type, status, created=True)


# While one batch waits for the disk, others are parsed and inserted.
_LANES = 3


class Enqueuer:
    """Enqueues from many requests at once; `run()` must be running.

    The jobs of one call commit together, and the call returns after that commit. `committed` is
    told how many calls each commit held.
    """

    def __init__(self, url: str, *, committed: Callable[[int], None] | None = None) -> None:
        self._commits: GroupCommit[Sequence[NewJob], list[Enqueued]] = GroupCommit(
            url, _flush_events, lanes=_LANES, committed=committed
        )

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Durable when it returns; DatabaseUnavailable where it is not known to be."""
        return await self._commits.submit(jobs)

    async def run(self) -> None:
        """Commit until cancelled."""
        await self._commits.run()


async def _flush_events(
    connection: AsyncConnection[DictRow], events: Sequence[Sequence[NewJob]]
) -> list[list[Enqueued]]:
    enqueued = iter(await insert_jobs(connection, [job for event in events for job in event]))
    return [[next(enqueued) for _ in event] for event in events]
