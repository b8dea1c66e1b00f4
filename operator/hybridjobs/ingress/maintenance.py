"""What any replica does for all, harmless when several do: dead leases and the roll-up tables."""

import asyncio
from time import monotonic

import structlog

from hybridjobs.errors import DatabaseUnavailable
from hybridjobs.model import AttemptEnd, Outcome
from hybridjobs.store import attempts
from hybridjobs.store.database import Database
from hybridjobs.store.outcome import record_outcome
from hybridjobs.store.statistics import refresh_rollups

log = structlog.get_logger(__name__)

_ROLLUP_SECONDS = 60.0


async def maintain(database: Database, *, every_seconds: float = 3.0) -> None:
    """Until cancelled; a database that is away is waited for."""
    rolled_up = float("-inf")
    while True:
        try:
            await end_expired_leases(database)
            if monotonic() - rolled_up >= _ROLLUP_SECONDS:
                async with database.connection() as connection:
                    await refresh_rollups(connection)
                rolled_up = monotonic()
        except DatabaseUnavailable as error:
            log.warning("maintenance waits", error=error.detail)
        await asyncio.sleep(every_seconds)


async def end_expired_leases(database: Database) -> int:
    """Close the inline attempts whose process is dead; their jobs go on as pods."""
    async with database.connection() as connection:
        expired = await attempts.expired_leases(connection)
    end = AttemptEnd(Outcome.LOST, "LeaseExpired", "the process that ran it is gone")
    ended = 0
    for job_id, attempt in expired:
        async with database.transaction() as connection:
            recorded = await record_outcome(connection, job_id, attempt, end)
        if recorded is not None and recorded.changed:
            ended += 1
            log.warning("lease expired", job_id=str(job_id), attempt=attempt)
    return ended
