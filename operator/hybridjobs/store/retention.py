"""Old rows go, a batch at a time, each in a short transaction of its own.

A walk goes through `background_jobs` along its primary key. Ids are UUIDv7 and begin with the
time of their creation, so that what is old enough is one range of them and needs no other index.
Rows that somebody holds are passed over until the next walk.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

import structlog
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.ids import first_id_of
from hybridjobs.settings import IngressSettings
from hybridjobs.store.database import Database

log = structlog.get_logger(__name__)

_LOCK = 0x72657461696E  # "retain"
_BATCH_ROWS = 1000
_PAUSE_SECONDS = 0.5

_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(%s) AS held"
# When a cancelled job ended is not kept: its cancel, and what else is known of it, must be old
# enough. Attempts, heartbeats, checkpoints and dependencies go with their job. Arrays: a join
# tempts the planner to read the whole table.
_DELETE_JOBS = """
WITH page AS MATERIALIZED (
    SELECT id FROM hybridjobs.background_jobs
    WHERE id > %(after)s AND id < %(before)s ORDER BY id LIMIT %(limit)s
), deleted AS (
    DELETE FROM hybridjobs.background_jobs WHERE id = ANY(ARRAY(
        SELECT job.id FROM hybridjobs.background_jobs job
        WHERE job.id = ANY(ARRAY(SELECT id FROM page))
          AND CASE job.status
                  WHEN 'completed' THEN job.completed_at < %(completed_before)s
                  WHEN 'cancelled' THEN greatest(job.created_at, job.started_at,
                                                 job.cancel_requested_at) < %(completed_before)s
                  WHEN 'failed' THEN coalesce(job.failed_at, job.created_at) < %(failed_before)s
                       AND (%(unresolved)s OR NOT EXISTS (
                           SELECT FROM hybridjobs.dead_letter_queue letter
                           WHERE letter.original_job_id = job.id AND letter.resolved_at IS NULL))
                  ELSE false
              END
        ORDER BY job.id FOR UPDATE OF job SKIP LOCKED))
    RETURNING id
)
SELECT (SELECT id FROM page ORDER BY id DESC LIMIT 1) AS last,
       (SELECT count(*) FROM deleted) AS deleted
"""
_DELETE_OTHERS = {
    "dead_letter_queue": """
DELETE FROM hybridjobs.dead_letter_queue WHERE id IN (
    SELECT id FROM hybridjobs.dead_letter_queue
    WHERE id < %(letters_before_id)s
      AND (resolved_at < %(letters_before)s
           OR %(unresolved)s AND resolved_at IS NULL AND moved_to_dlq_at < %(failed_before)s)
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
""",
    "job_batches": """
DELETE FROM hybridjobs.job_batches WHERE id IN (
    SELECT id FROM hybridjobs.job_batches batch
    WHERE created_at < %(batches_before)s
      AND NOT EXISTS (SELECT FROM hybridjobs.background_jobs job WHERE job.batch_id = batch.id)
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
""",
    "callback_deliveries": """
DELETE FROM hybridjobs.callback_deliveries WHERE id IN (
    SELECT id FROM hybridjobs.callback_deliveries
    WHERE id < %(deliveries_before_id)s AND status <> 'pending'
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
""",
    "throttle_starts": """
DELETE FROM hybridjobs.throttle_starts
WHERE (type, concurrency_key, started_at, job_id) IN (
    SELECT type, concurrency_key, started_at, job_id
    FROM hybridjobs.throttle_starts LEFT JOIN hybridjobs.job_types job_type USING (type)
    WHERE started_at < now() - make_interval(
        secs => coalesce((job_type.spec->'throttle'->>'periodSeconds')::float8, 0))
    LIMIT %(limit)s)
""",
    "job_rollups": """
DELETE FROM hybridjobs.job_rollups WHERE (minute, type, outcome) IN (
    SELECT minute, type, outcome FROM hybridjobs.job_rollups
    WHERE minute < %(rollups_before)s ORDER BY minute LIMIT %(limit)s)
""",
    "job_run_times": """
DELETE FROM hybridjobs.job_run_times WHERE (minute, type, runner, bucket) IN (
    SELECT minute, type, runner, bucket FROM hybridjobs.job_run_times
    WHERE minute < %(run_times_before)s ORDER BY minute LIMIT %(limit)s)
""",
    "github_redeliveries": """
DELETE FROM hybridjobs.github_redeliveries WHERE (hook, guid) IN (
    SELECT hook, guid FROM hybridjobs.github_redeliveries
    WHERE asked_at < %(redeliveries_before)s LIMIT %(limit)s)
""",
    "job_arrivals": """
DELETE FROM hybridjobs.job_arrivals WHERE (minute, type) IN (
    SELECT minute, type FROM hybridjobs.job_arrivals
    WHERE minute < %(rollups_before)s ORDER BY minute LIMIT %(limit)s)
""",
    "sync_logs": """
DELETE FROM github.sync_logs WHERE id IN (
    SELECT id FROM github.sync_logs WHERE id < %(logs_before_id)s ORDER BY id LIMIT %(limit)s)
""",
    "api_tokens": """
DELETE FROM hybridjobs.api_tokens WHERE id IN (
    SELECT id FROM hybridjobs.api_tokens
    WHERE least(revoked_at, expires_at) < %(tokens_before)s LIMIT %(limit)s)
""",
}


@dataclass(frozen=True, slots=True)
class Keep:
    """How long rows stay, counted from their end.

    A failed job with an unresolved dead letter stays as long as that is unresolved, unless
    `unresolved` says that both go, after the time of other failed jobs.
    """

    completed: timedelta = timedelta(days=7)  # and cancelled
    failed: timedelta = timedelta(days=30)
    unresolved: bool = False
    resolved_letters: timedelta = timedelta(days=90)
    batches: timedelta = timedelta(days=30)
    rollups: timedelta = timedelta(days=400)
    run_times: timedelta = timedelta(days=35)
    deliveries: timedelta = timedelta(days=30)  # of callbacks, counted from their job's end
    ended_tokens: timedelta = timedelta(days=90)  # revoked or expired
    sync_logs: timedelta = timedelta(days=90)  # of GitHub's handlers, counted from their start
    redeliveries: timedelta = timedelta(days=7)  # GitHub knows its deliveries for 3

    @classmethod
    def of(cls, settings: IngressSettings) -> Self:
        """As the settings say, and as usual where they say nothing."""
        return cls(
            completed=timedelta(days=settings.retention_completed_days),
            failed=timedelta(days=settings.retention_failed_days),
            unresolved=settings.retention_unresolved_dead_letters,
        )


async def delete_old_rows(
    database: Database,
    keep: Keep,
    *,
    batch_rows: int = _BATCH_ROWS,
    pause_seconds: float = _PAUSE_SECONDS,
) -> dict[str, int]:
    """One walk through everything; how many rows it deleted from each table.

    Rows that went with their job are not counted. It ends early where another replica is at it.
    """
    parameters = _parameters(keep, datetime.now(UTC), batch_rows)
    deleted = {"background_jobs": 0, **dict.fromkeys(_DELETE_OTHERS, 0)}
    with suppress(_AnotherReplica):
        after: UUID | None = UUID(int=0)
        while after is not None:
            async with _alone(database) as connection:
                cursor = await connection.execute(_DELETE_JOBS, {**parameters, "after": after})
                [page] = await cursor.fetchall()
            after = page["last"]
            deleted["background_jobs"] += page["deleted"]
            await asyncio.sleep(pause_seconds)
        for table, statement in _DELETE_OTHERS.items():
            count = batch_rows
            while count == batch_rows:
                async with _alone(database) as connection:
                    count = (await connection.execute(statement.encode(), parameters)).rowcount
                deleted[table] += count
                await asyncio.sleep(pause_seconds)
    if any(deleted.values()):
        log.info("old rows deleted", **deleted)
    return deleted


def _parameters(keep: Keep, now: datetime, batch_rows: int) -> dict[str, Any]:
    return {
        "before": first_id_of(now - min(keep.completed, keep.failed)),
        "completed_before": now - keep.completed,
        "failed_before": now - keep.failed,
        "unresolved": keep.unresolved,
        "letters_before": now - keep.resolved_letters,
        "letters_before_id": first_id_of(now - min(keep.resolved_letters, keep.failed)),
        "batches_before": now - keep.batches,
        "deliveries_before_id": first_id_of(now - keep.deliveries),
        "rollups_before": now - keep.rollups,
        "run_times_before": now - keep.run_times,
        "logs_before_id": first_id_of(now - keep.sync_logs),
        "tokens_before": now - keep.ended_tokens,
        "redeliveries_before": now - keep.redeliveries,
        "limit": batch_rows,
    }


class _AnotherReplica(Exception):  # noqa: N818 - no error
    pass


@asynccontextmanager
async def _alone(database: Database) -> AsyncIterator[AsyncConnection[DictRow]]:
    """A transaction in which no other replica deletes; _AnotherReplica where one does."""
    async with database.transaction() as connection:
        [lock] = await (await connection.execute(_TRY_LOCK, [_LOCK])).fetchall()
        if not lock["held"]:
            raise _AnotherReplica
        yield connection
