"""Which parts of pull requests and issues are captured, and the jobs that bring in the rest."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from hybridjobs.handlers.github.follow_ups import Due, FollowUp, Part, Subject
from hybridjobs.handlers.github.tables.queue import ChildJob, submit_jobs

# After so long, whoever was asked is thought to have failed for good.
REQUESTED_FOR = timedelta(hours=24)

_DUE = """
SELECT subject.id, subject.number, subject.updated_at, subject.state = 'open' AS is_open,
       array_agg(wanted.part ORDER BY wanted.part) AS parts
FROM github.{subject}s subject
CROSS JOIN unnest(%(parts)s::text[]) AS wanted (part)
LEFT JOIN github.{subject}_captures c ON c.{subject}_id = subject.id AND c.part = wanted.part
WHERE subject.repository_id = %(repository_id)s
  AND (%(numbers)s::integer[] IS NULL OR subject.number = ANY(%(numbers)s))
  AND (c.captured_for < subject.updated_at) IS NOT FALSE
  AND (c.requested_for >= subject.updated_at
       AND c.requested_at > now() - %(requested_for)s::interval) IS NOT TRUE
GROUP BY subject.id
ORDER BY is_open DESC, subject.updated_at DESC, subject.number
LIMIT %(at_most)s
"""

_UPDATED_AT = """
SELECT number, max(updated_at) FROM github.{subject}s
WHERE repository_id = %s AND number = ANY(%s) GROUP BY number
"""

_CAPTURED = """
INSERT INTO github.{subject}_captures AS known ({subject}_id, part, captured_for, captured_at)
SELECT subject.id, part, max(new.updated_at), now()
FROM unnest(%(numbers)s::integer[], %(updated)s::timestamptz[]) AS new (number, updated_at)
JOIN github.{subject}s subject
    ON subject.repository_id = %(repository_id)s AND subject.number = new.number
CROSS JOIN unnest(%(parts)s::text[]) AS part
GROUP BY subject.id, part
ORDER BY subject.id, part
ON CONFLICT ({subject}_id, part) DO UPDATE SET
    captured_for = greatest(known.captured_for, excluded.captured_for),
    captured_at = excluded.captured_at
"""

_REQUESTED = """
INSERT INTO github.{subject}_captures AS known ({subject}_id, part, requested_for, requested_at)
SELECT new.id, part, max(new.updated_at), now()
FROM unnest(%(ids)s::uuid[], %(updated)s::timestamptz[]) AS new (id, updated_at)
CROSS JOIN unnest(%(parts)s::text[]) AS part
GROUP BY new.id, part
ORDER BY new.id, part
ON CONFLICT ({subject}_id, part) DO UPDATE SET
    requested_for = excluded.requested_for, requested_at = excluded.requested_at
"""

_KINDS: tuple[Subject, ...] = ("pull_request", "issue")
DUE, UPDATED_AT, CAPTURED, REQUESTED = (
    {subject: statement.format(subject=subject) for subject in _KINDS}
    for statement in (_DUE, _UPDATED_AT, _CAPTURED, _REQUESTED)
)

SET_JOB_REPOSITORY = "SELECT hybridjobs.set_job_repository(%s, %s)"


class Captures:
    """`pull_request_captures`, `issue_captures`, and the queue as far as handlers reach it."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    async def due(
        self,
        subject: Subject,
        repository_id: UUID,
        parts: Sequence[Part],
        *,
        numbers: Sequence[int] | None = None,
        at_most: int = 10_000,
    ) -> list[Due]:
        """What has parts that are older than itself, and nobody was asked for within a day.

        All of the repository, or those `numbers`; open ones first, then what changed last.
        """
        async with self._connection.cursor(row_factory=class_row(Due)) as cursor:
            await cursor.execute(
                DUE[subject].encode(),
                {
                    "repository_id": repository_id,
                    "parts": list(parts),
                    "numbers": None if numbers is None else list(numbers),
                    "requested_for": REQUESTED_FOR,
                    "at_most": at_most,
                },
            )
            return await cursor.fetchall()

    async def updated_at(
        self, subject: Subject, repository_id: UUID, numbers: Sequence[int]
    ) -> dict[int, datetime]:
        """GitHub's time of each as it is stored; those that are not are left out."""
        cursor = await self._connection.execute(
            UPDATED_AT[subject].encode(), [repository_id, list(numbers)]
        )
        return dict(await cursor.fetchall())

    async def set_captured(
        self,
        subject: Subject,
        repository_id: UUID,
        parts: Sequence[Part],
        updated_at: Mapping[int, datetime],
    ) -> None:
        """The parts are captured, of each number as it was at its `updated_at`.

        That time must have been read before the parts were asked for. Within the transaction that
        writes their last page.
        """
        await self._connection.execute(
            CAPTURED[subject].encode(),
            {
                "repository_id": repository_id,
                "parts": list(parts),
                "numbers": list(updated_at),
                "updated": list(updated_at.values()),
            },
        )

    async def submit(
        self, subject: Subject, parent: UUID, repository_id: UUID, jobs: Sequence[FollowUp]
    ) -> list[UUID]:
        """Enqueue the jobs as children of `parent`, and note what is asked for; their ids.

        Within the transaction that writes the page. PermanentError where the queue refuses: the
        type is unknown or not allowed, or the parent does not run any more.
        """
        if not jobs:
            return []
        children = [
            ChildJob(job.type, job.payload, job.key, repository_id, job.priority) for job in jobs
        ]
        ids = await submit_jobs(self._connection, parent, children)
        for parts in dict.fromkeys(job.parts for job in jobs):
            asked = [each for job in jobs if job.parts == parts for each in job.due]
            await self._connection.execute(
                REQUESTED[subject].encode(),
                {
                    "parts": list(parts),
                    "ids": [each.id for each in asked],
                    "updated": [each.updated_at for each in asked],
                },
            )
        return ids

    async def set_job_repository(self, job_id: UUID, repository_id: UUID) -> bool:
        """Say in the queue what the job is about; False where it does not run there."""
        cursor = await self._connection.execute(SET_JOB_REPOSITORY, [job_id, repository_id])
        row = await cursor.fetchone()
        return row is not None and row[0] is True
