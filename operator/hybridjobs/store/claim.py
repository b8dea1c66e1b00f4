"""Dispatch as rows: which queued jobs get one of the places in the cluster."""

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.model import Claim

_LOCK = 0x636C61696D  # "claim"
_REDRIVE_AFTER = timedelta(seconds=5)

_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(%s) AS held"
_LIVE = """
SELECT job.type, count(*) AS live
FROM hybridjobs.job_attempts attempt JOIN hybridjobs.background_jobs job ON job.id = attempt.job_id
WHERE attempt.ended_at IS NULL AND attempt.runner = 'pod'
GROUP BY job.type
"""
_TYPES = """
SELECT type,
       CASE WHEN spec->'concurrency'->'key' IS NULL THEN spec->'concurrency'->'limit' END
           AS concurrency_limit
FROM hybridjobs.job_types WHERE paused_at IS NULL AND deleted_at IS NULL
"""
_CLAIM = """
WITH candidates AS (
    SELECT id, type, order_key FROM hybridjobs.background_jobs
    WHERE status = 'queued' AND dispatched_at IS NULL AND run_at <= now()
      AND cancel_requested_at IS NULL AND type = ANY(%(types)s)
    ORDER BY order_key, id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), ranked AS (
    SELECT id, row_number() OVER (PARTITION BY type ORDER BY order_key, id) AS place, type
    FROM candidates
), chosen AS (
    SELECT ranked.id FROM ranked
    JOIN unnest(%(types)s::text[], %(rooms)s::int[]) AS room (type, places) USING (type)
    WHERE ranked.place <= room.places
), claimed AS (
    UPDATE hybridjobs.background_jobs job
    SET attempt = job.attempt + 1, dispatched_at = now()
    FROM chosen WHERE job.id = chosen.id
    RETURNING job.id, job.type, job.attempt, job.deadline_seconds
)
INSERT INTO hybridjobs.job_attempts (job_id, attempt, runner, type_generation, deadline_seconds)
SELECT claimed.id, claimed.attempt, 'pod', job_type.generation,
       coalesce(claimed.deadline_seconds, (job_type.spec->>'deadlineSeconds')::int, 900)
FROM claimed JOIN hybridjobs.job_types job_type USING (type)
RETURNING job_id
"""
_CLAIMS = """
SELECT attempt.job_id, job.type, attempt.attempt, attempt.deadline_seconds, job.priority,
       'sha256:' || encode(sha256(convert_to(job.payload::text, 'UTF8')), 'hex') AS payload_digest,
       job.namespace, job.resource_name, job.resource_uid, job.traceparent
FROM hybridjobs.job_attempts attempt JOIN hybridjobs.background_jobs job ON job.id = attempt.job_id
WHERE attempt.ended_at IS NULL AND attempt.runner = 'pod' AND attempt.dispatched_at IS NULL
  AND (attempt.job_id = ANY(%(ids)s) OR attempt.claimed_at < now() - %(redrive_after)s)
ORDER BY attempt.claimed_at, attempt.job_id
LIMIT %(limit)s
"""
# The job's row before the attempt's, as everywhere.
_DISPATCHED = """
WITH job AS (
    SELECT id FROM hybridjobs.background_jobs WHERE id = %(job_id)s FOR UPDATE
), marked AS (
    UPDATE hybridjobs.job_attempts attempt
    SET dispatched_at = coalesce(attempt.dispatched_at, now()),
        hybridjob_uid = coalesce(attempt.hybridjob_uid, %(uid)s)
    FROM job
    WHERE attempt.job_id = job.id AND attempt.attempt = %(attempt)s AND attempt.ended_at IS NULL
    RETURNING attempt.job_id
)
UPDATE hybridjobs.background_jobs job
SET namespace = %(namespace)s, resource_name = %(name)s, resource_uid = %(uid)s
FROM marked WHERE job.id = marked.job_id
"""
_FORGET = """
UPDATE hybridjobs.background_jobs SET resource_uid = NULL
WHERE id = %(job_id)s AND resource_uid = %(uid)s
"""
_FORGET_SPENT = """
UPDATE hybridjobs.background_jobs SET resource_uid = NULL
WHERE id = ANY(%(ids)s) AND resource_uid = ANY(%(uids)s)
  AND status IN ('completed', 'failed', 'cancelled')
"""
_HELD_BY = """
SELECT resource_uid FROM hybridjobs.background_jobs
WHERE id = ANY(%(ids)s) AND resource_uid = ANY(%(uids)s)
"""
_WAITED = """
SELECT now() - claimed_at AS waited FROM hybridjobs.job_attempts
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND ended_at IS NULL
"""


async def claim(connection: AsyncConnection[DictRow], *, window: int) -> list[Claim]:
    """Open the next attempts, as many as `window` live ones allow, and return what to dispatch.

    Among them are earlier claims whose HybridJob nobody has confirmed for some seconds, as after
    a kill between commit and create. Runs in the caller's transaction; empty when another
    replica holds the claim lock. One type gets half the window at most, so that a flood of one
    leaves room for the others.
    """
    lock = await (await connection.execute(_TRY_LOCK, [_LOCK])).fetchone()
    if lock is None or not lock["held"]:
        return []
    live = {row["type"]: row["live"] for row in await (await connection.execute(_LIVE)).fetchall()}
    room = window - sum(live.values())
    claimed: list[object] = []
    if room > 0:
        share = max(1, window // 2)
        rooms = {
            row["type"]: min(share, row["concurrency_limit"] or share) - live.get(row["type"], 0)
            for row in await (await connection.execute(_TYPES)).fetchall()
        }
        rooms = {type_: places for type_, places in rooms.items() if places > 0}
        cursor = await connection.execute(
            _CLAIM, {"types": list(rooms), "rooms": list(rooms.values()), "limit": room}
        )
        claimed = [row["job_id"] for row in await cursor.fetchall()]
    cursor = await connection.execute(
        _CLAIMS, {"ids": claimed, "redrive_after": _REDRIVE_AFTER, "limit": window}
    )
    return [Claim(**row) for row in await cursor.fetchall()]


async def mark_dispatched(
    connection: AsyncConnection[DictRow], claimed: Claim, *, namespace: str, name: str, uid: str
) -> None:
    """The HybridJob `uid` now says this attempt. Changes nothing once the attempt is closed."""
    await connection.execute(
        _DISPATCHED,
        {
            "job_id": claimed.job_id,
            "attempt": claimed.attempt,
            "namespace": namespace,
            "name": name,
            "uid": uid,
        },
    )


async def forget_uid(connection: AsyncConnection[DictRow], job_id: UUID, uid: str) -> None:
    """The job's HybridJob is gone, or is about to go by us: the next dispatch makes a new one."""
    await connection.execute(_FORGET, {"job_id": job_id, "uid": uid})


async def forget_spent(
    connection: AsyncConnection[DictRow], uids: Mapping[str, UUID]
) -> frozenset[str]:
    """Before finished HybridJobs (uid → job id) are deleted: which of them may be.

    Not one whose job somebody retried meanwhile: that deletion would read as a cancel.
    """
    parameters = {"ids": list(uids.values()), "uids": list(uids)}
    await connection.execute(_FORGET_SPENT, parameters)
    cursor = await connection.execute(_HELD_BY, parameters)
    return frozenset(uids) - {row["resource_uid"] for row in await cursor.fetchall()}


async def waited_since_claim(
    connection: AsyncConnection[DictRow], claimed: Claim
) -> timedelta | None:
    """How long the attempt has been open; None: it is closed."""
    parameters = {"job_id": claimed.job_id, "attempt": claimed.attempt}
    row = await (await connection.execute(_WAITED, parameters)).fetchone()
    return None if row is None else row["waited"]
