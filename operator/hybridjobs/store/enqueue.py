"""Rows come to be here: every job that enters by HTTP, many to a commit."""

from collections.abc import Callable, Sequence

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.errors import DatabaseUnavailable
from hybridjobs.model import Enqueued, NewJob, Status
from hybridjobs.store.group_commit import GroupCommit
from hybridjobs.store.locks import PATIENCE
from hybridjobs.tracing import span

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
    "inngest_run_id",
)
_INPUT = """
    %(id)b::uuid[], %(type)b::text[], %(payload)b::text[], %(source)b::text[], %(key)b::text[],
    %(priority)b::int4[], %(max_retries)b::int4[], %(deadline_seconds)b::int4[],
    %(parent_id)b::uuid[], %(submitted_by)b::text[], %(traceparent)b::text[],
    %(inngest_event_id)b::text[], %(inngest_run_id)b::text[]"""
_NAMES = ", ".join(_COLUMNS)
# Nearly every job: it waits in line from now on.
_INSERT = f"""
INSERT INTO hybridjobs.background_jobs
    (id, type, payload, source, key, priority, order_key, max_retries, deadline_seconds,
     parent_id, submitted_by, traceparent, inngest_event_id, inngest_run_id)
SELECT id, type, payload::json, source, key, priority,
       now() - make_interval(mins => priority), max_retries, deadline_seconds, parent_id,
       submitted_by, traceparent, inngest_event_id, inngest_run_id
FROM unnest({_INPUT}) AS input ({_NAMES})
ON CONFLICT DO NOTHING
"""  # noqa: S608 - of constants
_MORE_COLUMNS = (
    "run_at",
    "key_path",
    "unique_key",
    "unique_while",
    "on_dependency_failure",
    "batch_id",
    "callback",
    "lease_seconds",
    "type_generation",
    "request_digest",
)
# The rest. A job with a lease begins with its row: attempt 1 is inserted by the same statement, so
# that a redelivery can never find a quick job that nobody runs. A unique key that an application
# has submitted, and not yet committed, holds up its own job alone.
_INSERT_WITH_MORE = f"""
WITH input AS (
    SELECT input.*, coalesce(run_at, now()) AS due,
           CASE WHEN key_path IS NOT NULL
                THEN hybridjobs.concurrency_key_at(payload::json, key_path) END AS concurrency_key
    FROM unnest({_INPUT}, %(run_at)b::timestamptz[], %(key_path)b::text[], %(unique_key)b::text[],
                %(unique_while)b::text[], %(on_dependency_failure)b::text[], %(batch_id)b::uuid[],
                %(callback)b::text[], %(lease_seconds)b::float8[], %(type_generation)b::int8[],
                %(request_digest)b::bytea[])
         AS input ({_NAMES}, {", ".join(_MORE_COLUMNS)})
    CROSS JOIN {PATIENCE}
), waiting AS (
    SELECT * FROM unnest(%(waiting)b::uuid[], %(awaited)b::uuid[]) AS waiting (job_id, depends_on)
), inserted AS (
    INSERT INTO hybridjobs.background_jobs
        (id, type, payload, source, key, priority, run_at, order_key, max_retries,
         deadline_seconds, parent_id, submitted_by, traceparent, inngest_event_id,
         inngest_run_id, concurrency_key, unique_key, unique_while, on_dependency_failure, batch_id,
         callback, request_digest, status, attempt, dispatched_at, started_at, stage)
    SELECT id, type, payload::json, source, key, priority, due,
           due - make_interval(mins => priority), max_retries, deadline_seconds, parent_id,
           submitted_by, traceparent, inngest_event_id, inngest_run_id, concurrency_key, unique_key,
           CASE WHEN unique_key IS NOT NULL THEN unique_while END,
           CASE WHEN blocked THEN on_dependency_failure END, batch_id, callback::jsonb,
           request_digest,
           CASE WHEN lease_seconds IS NULL THEN 'queued' ELSE 'processing' END,
           CASE WHEN lease_seconds IS NULL THEN 0 ELSE 1 END,
           CASE WHEN lease_seconds IS NOT NULL THEN now() END,
           CASE WHEN lease_seconds IS NOT NULL THEN now() END,
           CASE WHEN lease_seconds IS NULL
                THEN hybridjobs.first_stage(type, concurrency_key, due, blocked) END
    FROM input CROSS JOIN LATERAL (
        SELECT EXISTS (SELECT FROM waiting WHERE waiting.job_id = input.id)) AS w (blocked)
    ON CONFLICT DO NOTHING
    RETURNING id
), begun AS (
    INSERT INTO hybridjobs.job_attempts
        (job_id, attempt, runner, type_generation, deadline_seconds, started_at, lease_until)
    SELECT id, 1, 'inline', type_generation, deadline_seconds, now(),
           now() + make_interval(secs => lease_seconds)
    FROM inserted JOIN input USING (id)
    WHERE lease_seconds IS NOT NULL
), blocked AS (
    INSERT INTO hybridjobs.job_dependencies (job_id, depends_on)
    SELECT DISTINCT id, depends_on FROM inserted JOIN waiting ON waiting.job_id = inserted.id
)
SELECT id FROM inserted
"""  # noqa: S608 - of constants
# A key is the caller's word for one job; what is unique only for a time gives way to it.
_FIND = """
SELECT DISTINCT ON (input.place) input.place, job.id, job.status
FROM unnest(%(id)b::uuid[], %(source)b::text[], %(key)b::text[], %(type)b::text[],
            %(unique_key)b::text[], %(request_digest)b::bytea[])
     WITH ORDINALITY AS input (id, source, key, type, unique_key, request_digest, place)
JOIN hybridjobs.background_jobs job
     ON job.id = input.id
     OR (job.source = input.source AND job.key = input.key AND job.type = input.type)
     OR (job.source = input.source AND job.key = input.key
         AND job.request_digest IS NOT NULL AND input.request_digest IS NOT NULL)
     OR (job.type = input.type AND job.unique_key = input.unique_key
         AND job.status IN ('queued', 'processing'))
ORDER BY input.place, job.id = input.id DESC, job.key = input.key DESC NULLS LAST
"""
_DIGESTS = """
SELECT type, request_digest FROM hybridjobs.background_jobs WHERE source = %s AND key = %s
"""
_UNKNOWN = """
SELECT id FROM unnest(%s::uuid[]) AS asked (id)
WHERE NOT EXISTS (SELECT FROM hybridjobs.background_jobs job WHERE job.id = asked.id)
"""
_ROUNDS = 3


async def insert_jobs(
    connection: AsyncConnection[DictRow], jobs: Sequence[NewJob]
) -> list[Enqueued]:
    """Insert what is new; one Enqueued a job, in order. Safe to repeat with the same ids.

    One statement writes: in the caller's transaction, or as one of its own. A job whose (source,
    key, type), id, or unique key is there already gives that row; two of one call with the same
    key give one row. Of those with a request digest (source, key) alone is unique: the row that is
    given may be of another type.
    """
    if await _insert(connection, jobs) == len(jobs):
        return [_new(job) for job in jobs]
    # Some were there already. An id of our own among them was made by this very call, before its
    # connection died.
    found: dict[int, Enqueued] = {}
    for _ in range(_ROUNDS):
        places = [place for place in range(len(jobs)) if place not in found]
        rest = [jobs[place] for place in places]
        names = ("id", "source", "key", "type", "unique_key", "request_digest")
        cursor = await connection.execute(_FIND, _arrays(rest, names))
        for row in await cursor.fetchall():
            job = rest[row["place"] - 1]
            found[places[row["place"] - 1]] = Enqueued(
                row["id"], job.type, Status(row["status"]), created=row["id"] == job.id
            )
        if len(found) == len(jobs):
            return [found[place] for place in range(len(jobs))]
        # What stood in the way is over by now, or gone.
        await _insert(connection, [jobs[place] for place in places if place not in found])
    raise DatabaseUnavailable("the same key comes and goes too fast", retry_after=1)


async def digests_of_key(
    connection: AsyncConnection[DictRow], source: str, key: str
) -> dict[str, bytes | None]:
    """The types of the jobs with this key, each with the digest of the request that made it."""
    cursor = await connection.execute(_DIGESTS, [source, key])
    return {row["type"]: row["request_digest"] for row in await cursor.fetchall()}


async def unknown_jobs(
    connection: AsyncConnection[DictRow], ids: Sequence[object]
) -> frozenset[object]:
    """Those of the ids that name no job."""
    cursor = await connection.execute(_UNKNOWN, [list(ids)])
    return frozenset(row["id"] for row in await cursor.fetchall())


async def _insert(connection: AsyncConnection[DictRow], jobs: Sequence[NewJob]) -> int:
    if not any(map(_asks_for_more, jobs)):
        return (await connection.execute(_INSERT, _arrays(jobs, _COLUMNS))).rowcount
    waits = [(job.id, awaited) for job in jobs for awaited in job.depends_on]
    cursor = await connection.execute(
        _INSERT_WITH_MORE,
        {
            **_arrays(jobs, (*_COLUMNS, *_MORE_COLUMNS)),
            "waiting": [job_id for job_id, _ in waits],
            "awaited": [awaited for _, awaited in waits],
        },
    )
    return cursor.rowcount


def _asks_for_more(job: NewJob) -> bool:
    return (
        job.lease_seconds is not None
        or job.run_at is not None
        or job.key_path is not None
        or job.unique_key is not None
        or job.batch_id is not None
        or job.request_digest is not None
        or job.callbacks != ()
        or job.depends_on != ()
    )


def _arrays(jobs: Sequence[NewJob], names: Sequence[str]) -> dict[str, list[object] | None]:
    """The jobs' columns; one of nothing but nulls as null, which unnest fills up for less."""
    fields = dict(zip(NewJob._fields, zip(*jobs, strict=True), strict=True))
    columns = {name: fields.get(name) or [getattr(job, name) for job in jobs] for name in names}
    return {
        name: None if values.count(None) == len(values) else list(values)
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
        with span("enqueue", jobs[0].traceparent if jobs else None):
            return await self._commits.submit(jobs)

    async def run(self) -> None:
        """Commit until cancelled."""
        await self._commits.run()


async def _flush_events(
    connection: AsyncConnection[DictRow], events: Sequence[Sequence[NewJob]]
) -> list[list[Enqueued]]:
    enqueued = iter(await insert_jobs(connection, [job for event in events for job in event]))
    return [[next(enqueued) for _ in event] for event in events]
