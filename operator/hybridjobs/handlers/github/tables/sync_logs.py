"""What each job did: one row a job, over all its attempts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from hybridjobs.ids import new_id

MAX_ERROR = 2000  # characters

# A later attempt of the job goes on with its row.
START = """
INSERT INTO github.sync_logs AS known (id, job_id, sync_type, repository_id)
VALUES (%(id)s, %(job_id)s, %(sync_type)s, %(repository_id)s)
ON CONFLICT (job_id) DO UPDATE SET
    status = 'started', completed_at = NULL, error_message = NULL,
    repository_id = coalesce(excluded.repository_id, known.repository_id)
RETURNING id
"""

# Counts are those of the whole job, so that saying them twice changes nothing.
UPDATE = """
UPDATE github.sync_logs
SET status = %(status)s,
    completed_at = CASE WHEN %(status)s <> 'started' THEN now() END,
    repository_id = coalesce(%(repository_id)s, repository_id),
    records_processed = greatest(records_processed, %(processed)s),
    records_inserted = greatest(records_inserted, %(inserted)s),
    records_updated = greatest(records_updated, %(updated)s),
    records_failed = greatest(records_failed, %(failed)s),
    github_api_calls_used = greatest(github_api_calls_used, %(calls_used)s),
    rate_limit_remaining = coalesce(%(remaining)s, rate_limit_remaining),
    error_message = %(error)s,
    metadata = metadata || %(metadata)s
WHERE id = %(id)s
"""


@dataclass(frozen=True, slots=True)
class SyncCounts:
    """What a job did so far, over all its attempts. `remaining`: of the rate limit."""

    processed: int = 0
    inserted: int = 0
    updated: int = 0
    failed: int = 0
    calls_used: int = 0
    remaining: int | None = None


class SyncLogs:
    """`sync_logs`."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    async def start(self, job_id: UUID, sync_type: str, repository_id: UUID | None = None) -> UUID:
        """The job's row, which a later attempt takes up again; its id."""
        cursor = await self._connection.execute(
            START,
            {
                "id": new_id(),
                "job_id": job_id,
                "sync_type": sync_type,
                "repository_id": repository_id,
            },
        )
        row = await cursor.fetchone()
        assert row is not None
        log_id: UUID = row[0]
        return log_id

    async def progress(self, log_id: UUID, counts: SyncCounts) -> None:
        """What was done so far; within the page's transaction it is exact."""
        await self._update(log_id, "started", counts, None, None, {})

    async def complete(
        self,
        log_id: UUID,
        counts: SyncCounts,
        *,
        repository_id: UUID | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        """The job has done its work."""
        await self._update(log_id, "completed", counts, repository_id, None, metadata or {})

    async def fail(
        self, log_id: UUID, counts: SyncCounts, error: str, *, repository_id: UUID | None = None
    ) -> None:
        """The attempt failed; the next one, if there is one, starts the row again."""
        text = error.replace("\x00", "")[:MAX_ERROR]
        await self._update(log_id, "failed", counts, repository_id, text, {})

    async def _update(
        self,
        log_id: UUID,
        status: str,
        counts: SyncCounts,
        repository_id: UUID | None,
        error: str | None,
        metadata: Mapping[str, object],
    ) -> None:
        await self._connection.execute(
            UPDATE,
            {
                "id": log_id,
                "status": status,
                "repository_id": repository_id,
                "error": error,
                "metadata": Jsonb(dict(metadata)),
                **asdict(counts),
            },
        )
