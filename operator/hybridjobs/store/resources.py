"""Which HybridJob stands for a job's row, as the dispatcher and the sweep write it down."""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.model import Claim, NewJob
from hybridjobs.store.enqueue import insert_jobs
from hybridjobs.store.locks import LOCKED_JOB, PATIENCE

# The job's row before the attempt's, as everywhere.
_DISPATCHED = f"""
WITH job AS ({LOCKED_JOB}), marked AS (
    UPDATE hybridjobs.job_attempts attempt
    SET dispatched_at = coalesce(attempt.dispatched_at, now()),
        hybridjob_uid = coalesce(attempt.hybridjob_uid, %(uid)s)
    FROM job
    WHERE attempt.job_id = job.id AND attempt.attempt = %(attempt)s AND attempt.ended_at IS NULL
    RETURNING attempt.job_id, attempt.hybridjob_uid
)
UPDATE hybridjobs.background_jobs job
SET namespace = %(namespace)s, resource_name = %(name)s, resource_uid = %(uid)s
FROM marked WHERE job.id = marked.job_id
  -- One that says late what another has said anew: the row stands by the attempt's.
  AND (marked.hybridjob_uid = %(uid)s OR job.resource_uid IS DISTINCT FROM marked.hybridjob_uid)
"""  # noqa: S608 - of constants
_ADOPTED = f"""
UPDATE hybridjobs.background_jobs
SET namespace = %(namespace)s, resource_name = %(name)s, resource_uid = %(uid)s
FROM {PATIENCE}
WHERE id = %(job_id)s AND resource_uid IS NULL
"""  # noqa: S608 - of constants
_FORGET = f"""
UPDATE hybridjobs.background_jobs SET resource_uid = NULL FROM {PATIENCE}
WHERE id = %(job_id)s AND resource_uid = %(uid)s
"""  # noqa: S608 - of constants
_HAND_OUT_AGAIN = f"""
WITH job AS ({LOCKED_JOB}), unsaid AS (
    UPDATE hybridjobs.job_attempts attempt SET hybridjob_uid = NULL, dispatched_at = NULL
    FROM job
    WHERE attempt.job_id = job.id AND attempt.attempt = %(attempt)s AND attempt.ended_at IS NULL
      AND attempt.hybridjob_uid = %(uid)s
    RETURNING attempt.job_id
)
UPDATE hybridjobs.background_jobs job SET resource_uid = nullif(job.resource_uid, %(uid)s)
FROM unsaid WHERE job.id = unsaid.job_id
"""  # noqa: S608 - of constants
# An attempt that the row does not know of yet: the database was restored from a backup.
_ASKED = (
    "unnest(%(ids)s::uuid[], %(uids)s::text[], %(attempts)s::int4[]) AS asked (id, uid, attempt)"
)
# Those that somebody holds keep theirs.
_FORGET_SPENT = f"""
WITH spent AS (
    SELECT job.id FROM {_ASKED} JOIN hybridjobs.background_jobs job USING (id)
    WHERE job.resource_uid = asked.uid AND job.attempt >= asked.attempt
      AND job.status IN ('completed', 'failed', 'cancelled')
    ORDER BY job.id FOR UPDATE OF job SKIP LOCKED
)
UPDATE hybridjobs.background_jobs job SET resource_uid = NULL FROM spent WHERE job.id = spent.id
"""  # noqa: S608 - of constants
_STILL_NEEDED = f"""
SELECT asked.uid FROM {_ASKED} JOIN hybridjobs.background_jobs job USING (id)
WHERE job.resource_uid = asked.uid OR job.attempt < asked.attempt
   OR job.status NOT IN ('completed', 'failed', 'cancelled')
"""  # noqa: S608 - of constants
_OPEN = """
SELECT now() - claimed_at AS waited, started_at IS NOT NULL AS has_started
FROM hybridjobs.job_attempts
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND ended_at IS NULL
"""


async def adopt_job(
    connection: AsyncConnection[DictRow], job: NewJob, *, namespace: str, name: str, uid: str
) -> None:
    """Make the row of a HybridJob that came by kubectl; a second time changes nothing.

    In the caller's transaction, which the dispatcher must not see the middle of.
    """
    await insert_jobs(connection, [job])
    await connection.execute(
        _ADOPTED, {"job_id": job.id, "namespace": namespace, "name": name, "uid": uid}
    )


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


async def hand_out_again(
    connection: AsyncConnection[DictRow], job_id: UUID, attempt: int, uid: str
) -> None:
    """The open attempt's HybridJob `uid` is gone, its Job is not: the dispatcher says it anew."""
    await connection.execute(_HAND_OUT_AGAIN, {"job_id": job_id, "attempt": attempt, "uid": uid})


class Spent(NamedTuple):
    """A finished HybridJob that is about to be deleted: of which job, and its last attempt."""

    uid: str
    job_id: UUID
    attempt: int


async def forget_spent(
    connection: AsyncConnection[DictRow], spent: Sequence[Spent]
) -> frozenset[str]:
    """Before finished HybridJobs are deleted: the uids of those that may be.

    Not one whose job somebody retried meanwhile, or holds: that deletion would read as a cancel.
    Nor one whose outcome the row does not have: the database was restored from before it.
    """
    parameters = {
        "ids": [each.job_id for each in spent],
        "uids": [each.uid for each in spent],
        "attempts": [each.attempt for each in spent],
    }
    await connection.execute(_FORGET_SPENT, parameters)
    cursor = await connection.execute(_STILL_NEEDED, parameters)
    return frozenset(each.uid for each in spent) - {row["uid"] for row in await cursor.fetchall()}


class OpenAttempt(NamedTuple):
    """How long an attempt has been open since its claim, and whether it has started."""

    waited: timedelta
    has_started: bool


async def find_open(connection: AsyncConnection[DictRow], claimed: Claim) -> OpenAttempt | None:
    """The attempt; None: it is closed."""
    parameters = {"job_id": claimed.job_id, "attempt": claimed.attempt}
    row = await (await connection.execute(_OPEN, parameters)).fetchone()
    return None if row is None else OpenAttempt(**row)
