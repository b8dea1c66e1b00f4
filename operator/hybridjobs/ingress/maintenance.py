"""What any replica does for all, harmless when several do: each duty in a rhythm of its own."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from hybridjobs.errors import DatabaseUnavailable, RowLocked
from hybridjobs.model import AttemptEnd, Outcome
from hybridjobs.store import attempts
from hybridjobs.store.database import Database
from hybridjobs.store.outcome import record_outcome
from hybridjobs.store.retention import Keep, delete_old_rows
from hybridjobs.store.statistics import refresh_rollups
from hybridjobs.store.stuck import SilentAttempts, put_right

log = structlog.get_logger(__name__)

Duty = Callable[[], Awaitable[object]]


async def maintain(database: Database, keep: Keep) -> None:
    """Until cancelled; a database that is away is waited for."""

    async def fold_minutes() -> None:
        async with database.connection() as connection:
            await refresh_rollups(connection)

    duties: tuple[tuple[float, Duty], ...] = (
        (3, lambda: end_expired_leases(database)),
        (10, SilentAttempts(database).end),
        (10, lambda: put_right(database)),
        (60, fold_minutes),
        (600, lambda: delete_old_rows(database, keep)),
    )
    async with asyncio.TaskGroup() as group:
        for period_seconds, duty in duties:
            group.create_task(_repeat(duty, period_seconds))


async def _repeat(duty: Duty, period_seconds: float) -> None:
    while True:
        try:
            await duty()
        except DatabaseUnavailable as error:
            log.warning("maintenance waits", error=error.detail)
        except Exception:
            # What one duty meets with a row must not end the others, and webhooks.
            log.exception("maintenance failed")
        await asyncio.sleep(period_seconds)


async def end_expired_leases(database: Database) -> int:
    """Close the inline attempts whose process is dead; their jobs go on as pods."""
    async with database.connection() as connection:
        expired = await attempts.expired_leases(connection)
    end = AttemptEnd(Outcome.LOST, "LeaseExpired", "the process that ran it is gone")
    ended = 0
    for job_id, attempt in expired:
        try:
            async with database.transaction() as connection:
                recorded = await record_outcome(connection, job_id, attempt, end)
        except RowLocked:
            continue  # the next round finds it again
        if recorded is not None and recorded.changed:
            ended += 1
            log.warning("lease expired", job_id=str(job_id), attempt=attempt)
    return ended
