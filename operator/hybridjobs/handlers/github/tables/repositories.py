"""What is known of repositories, and how their syncs and classifications stand."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from hybridjobs.handlers.github.cooldowns import SyncState
from hybridjobs.ids import new_id

SyncStatus = Literal["idle", "syncing", "completed", "failed", "partial"]
Priority = Literal["high", "medium", "low"]
Size = Literal["small", "medium", "large", "xl"]

CLASSIFIED_FOR = timedelta(days=30)
CLASSIFIED_FOR_HIGH_PRIORITY = timedelta(days=7)

_COLUMNS = "r.id, r.github_id, r.owner, r.name, r.full_name, r.is_active"

BY_ID = f"SELECT {_COLUMNS} FROM github.repositories r WHERE r.id = %s"  # noqa: S608

# A name may have passed on; whoever was seen last has it.
BY_NAME = f"""
SELECT {_COLUMNS} FROM github.repositories r WHERE lower(r.full_name) = lower(%s)
ORDER BY r.is_active DESC, r.last_updated_at DESC LIMIT 1
"""  # noqa: S608

SET_SYNC_STATUS = """
UPDATE github.repositories
SET sync_status = %(status)s,
    last_synced_at = CASE WHEN %(status)s = 'completed' THEN now() ELSE last_synced_at END,
    total_pull_requests = coalesce(%(total_pull_requests)s, total_pull_requests)
WHERE id = %(repository_id)s
"""

SET_GONE = "UPDATE github.repositories SET is_active = false WHERE id = %s AND is_active"

# Incomplete: a part of a pull request was never captured.
SYNC_STATE = """
SELECT r.sync_status, r.last_synced_at, NOT EXISTS (
    SELECT FROM github.pull_requests p
    CROSS JOIN unnest(ARRAY['details', 'reviews', 'comments']) AS wanted (part)
    LEFT JOIN github.pull_request_captures c ON c.pull_request_id = p.id AND c.part = wanted.part
    WHERE p.repository_id = r.id AND c.captured_for IS NULL) AS is_complete
FROM github.repositories r WHERE r.id = %s
"""

TRACK = """
INSERT INTO github.tracked_repositories (id, repository_id, priority) VALUES (%s, %s, %s)
ON CONFLICT (repository_id) DO NOTHING
"""

SET_SIZE = """
INSERT INTO github.tracked_repositories AS known
    (id, repository_id, size, metrics, size_calculated_at)
VALUES (%(id)s, %(repository_id)s, %(size)s, %(metrics)s, now())
ON CONFLICT (repository_id) DO UPDATE SET
    size = excluded.size, metrics = excluded.metrics,
    size_calculated_at = excluded.size_calculated_at, updated_at = now()
"""

TO_CLASSIFY = f"""
SELECT {_COLUMNS} FROM github.tracked_repositories t
JOIN github.repositories r ON r.id = t.repository_id
WHERE t.tracking_enabled AND r.is_active AND (
    t.size_calculated_at IS NULL
    OR t.size_calculated_at < now() - CASE WHEN t.priority = 'high' THEN %s ELSE %s END)
ORDER BY t.size_calculated_at NULLS FIRST, t.priority = 'high' DESC, r.id
LIMIT %s
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class KnownRepository:
    """A repository that is stored, by its last known name. Not active: GitHub has it no more."""

    id: UUID
    github_id: int
    owner: str
    name: str
    full_name: str
    is_active: bool


class Repositories:
    """`repositories` and `tracked_repositories`, but for what pages write."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    async def by_id(self, repository_id: UUID) -> KnownRepository | None:
        """The one of that id of ours."""
        return await self._one(BY_ID, repository_id)

    async def by_name(self, full_name: str) -> KnownRepository | None:
        """The one that had the name last, whatever its case."""
        return await self._one(BY_NAME, full_name)

    async def set_sync_status(
        self, repository_id: UUID, status: SyncStatus, *, total_pull_requests: int | None = None
    ) -> None:
        """Say how the sync stands; `completed` also sets its time."""
        await self._connection.execute(
            SET_SYNC_STATUS,
            {
                "repository_id": repository_id,
                "status": status,
                "total_pull_requests": total_pull_requests,
            },
        )

    async def sync_state(self, repository_id: UUID) -> SyncState | None:
        """What cooldowns go by; None where the repository is not stored."""
        async with self._connection.cursor(row_factory=class_row(SyncState)) as cursor:
            await cursor.execute(SYNC_STATE, [repository_id])
            return await cursor.fetchone()

    async def set_gone(self, repository_id: UUID) -> bool:
        """GitHub has it no more, or not for us; what is stored stays. Whether that is new."""
        return (await self._connection.execute(SET_GONE, [repository_id])).rowcount == 1

    async def track(self, repository_id: UUID, priority: Priority = "low") -> bool:
        """Have it synced and classified from now on; whether that is new."""
        parameters = [new_id(), repository_id, priority]
        return (await self._connection.execute(TRACK, parameters)).rowcount == 1

    async def set_size(
        self, repository_id: UUID, size: Size, metrics: Mapping[str, object]
    ) -> None:
        """Its class, and what that was found by; it is tracked from then on, if it was not."""
        await self._connection.execute(
            SET_SIZE,
            {
                "id": new_id(),
                "repository_id": repository_id,
                "size": size,
                "metrics": Jsonb(dict(metrics)),
            },
        )

    async def to_classify(self, at_most: int) -> list[KnownRepository]:
        """Tracked ones whose class is unknown or old, the unknown and then the oldest first.

        Old: after 30 days, with high priority after 7.
        """
        async with self._connection.cursor(row_factory=class_row(KnownRepository)) as cursor:
            await cursor.execute(
                TO_CLASSIFY.encode(), [CLASSIFIED_FOR_HIGH_PRIORITY, CLASSIFIED_FOR, at_most]
            )
            return await cursor.fetchall()

    async def _one(self, query: str, key: object) -> KnownRepository | None:
        async with self._connection.cursor(row_factory=class_row(KnownRepository)) as cursor:
            await cursor.execute(query.encode(), [key])
            return await cursor.fetchone()
