"""Jobs that are submitted together: all of them or none, and counted together from then on."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.model import Enqueued, NewJob, Status
from hybridjobs.store.enqueue import insert_jobs

_INSERT = """
INSERT INTO hybridjobs.job_batches (id, key, source, total, submitted_by, request_digest)
VALUES (%(id)s, %(key)s, %(source)s, %(total)s, %(submitted_by)s, %(request_digest)s)
ON CONFLICT DO NOTHING
"""
_FIND = """
SELECT id, total, request_digest FROM hybridjobs.job_batches
WHERE source = %(source)s AND key = %(key)s
"""
_SET_TOTAL = "UPDATE hybridjobs.job_batches SET total = %(total)s WHERE id = %(id)s"
_GET = "SELECT id, key, source, total, created_at FROM hybridjobs.job_batches WHERE id = ANY(%s)"
_COUNT = """
SELECT batch_id, status, count(*) AS jobs FROM hybridjobs.background_jobs
WHERE batch_id = ANY(%s) GROUP BY batch_id, status
"""


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch to create; the same (source, key) gives the same batch."""

    id: UUID
    source: str
    key: str | None = None
    submitted_by: str | None = None
    request_digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class CreatedBatch:
    """The batch that stands for a NewBatch: a new one, or the one an earlier request made.

    `total` counts the jobs that are its own. `jobs` are the rows of a new one's jobs, those among
    them that were there before included.
    """

    id: UUID
    total: int
    created: bool
    jobs: tuple[Enqueued, ...] = ()
    request_digest: bytes | None = None  # of the request that made it, where that was kept


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch and how many of its jobs are in each status; retention deletes finished ones."""

    id: UUID
    key: str | None
    source: str
    total: int
    created_at: datetime
    counts: dict[Status, int]

    @property
    def finished(self) -> bool:
        """Whether every job of it is over."""
        return all(not jobs for status, jobs in self.counts.items() if not status.is_terminal)


async def create_batch(
    connection: AsyncConnection[DictRow], batch: NewBatch, jobs: Sequence[NewJob]
) -> CreatedBatch:
    """Insert the batch with its jobs, in the caller's transaction.

    Each job must come after those of the batch that it depends on. One whose key, or unique key,
    an earlier job has is that job, and no member of this batch.
    """
    row = {
        "id": batch.id,
        "key": batch.key,
        "source": batch.source,
        "total": len(jobs),
        "submitted_by": batch.submitted_by,
        "request_digest": batch.request_digest,
    }
    if not (await connection.execute(_INSERT, row)).rowcount:
        [found] = await (await connection.execute(_FIND, row)).fetchall()
        return CreatedBatch(
            found["id"], found["total"], created=False, request_digest=found["request_digest"]
        )
    enqueued: list[Enqueued] = []
    # Of the members that gave way, the jobs that stand for them.
    stand_ins: dict[UUID, UUID] = {}
    for level in _levels(jobs):
        rows = [_redirected(job, stand_ins, batch.id) for job in level]
        found_or_new = await insert_jobs(connection, rows)
        stand_ins |= {
            job.id: row.id for job, row in zip(level, found_or_new, strict=True) if not row.created
        }
        enqueued += found_or_new
    total = sum(each.created for each in enqueued)
    if total < len(jobs):
        await connection.execute(_SET_TOTAL, {"id": batch.id, "total": total})
    return CreatedBatch(batch.id, total, created=True, jobs=tuple(enqueued))


async def get_batch(connection: AsyncConnection[DictRow], batch_id: UUID) -> Batch | None:
    """The batch with its counts; None: unknown."""
    return (await get_batches(connection, [batch_id])).get(batch_id)


async def get_batches(
    connection: AsyncConnection[DictRow], ids: Collection[UUID]
) -> dict[UUID, Batch]:
    """Those of these batches that are there; their counts of statuses without a job are 0."""
    rows = await (await connection.execute(_GET, [list(ids)])).fetchall()
    found = {row["id"]: Batch(**row, counts=dict.fromkeys(Status, 0)) for row in rows}
    for counted in await (await connection.execute(_COUNT, [list(found)])).fetchall():
        found[counted["batch_id"]].counts[Status(counted["status"])] = counted["jobs"]
    return found


def _levels(jobs: Sequence[NewJob]) -> list[list[NewJob]]:
    """The jobs in as few rounds as may be.

    Which row a job with a key has is known only when it was inserted, and who depends on it needs
    to know: those come a round later.
    """
    level_of: dict[UUID, int] = {}
    may_give_way = {job.id for job in jobs if job.key is not None or job.unique_key is not None}
    levels: list[list[NewJob]] = []
    for job in jobs:
        members = [awaited for awaited in job.depends_on if awaited in level_of]
        level = max((level_of[each] + (each in may_give_way) for each in members), default=0)
        level_of[job.id] = level
        if level == len(levels):
            levels.append([])
        levels[level].append(job)
    return levels


def _redirected(job: NewJob, stand_ins: Mapping[UUID, UUID], batch_id: UUID) -> NewJob:
    depends_on = tuple(stand_ins.get(awaited, awaited) for awaited in job.depends_on)
    return job._replace(depends_on=depends_on, batch_id=batch_id)
