"""A row that is behind the cluster: the database was restored from a backup, or lost its last
commits in a failover. An attempt is committed before the cluster is told of it, so that otherwise
none of the cluster's is later than the row's.
"""

from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.store.locks import PATIENCE

_BEHIND = f"""
SELECT attempt, status IN ('completed', 'failed', 'cancelled') AS is_over, cancel_requested_at
FROM hybridjobs.background_jobs CROSS JOIN {PATIENCE}
WHERE id = %(job_id)s AND attempt < %(attempt)s FOR UPDATE OF background_jobs
"""  # noqa: S608 - of constants
# As a retry by people, which it was. Its unique key may be another job's by now.
_REOPEN = """
UPDATE hybridjobs.background_jobs
SET status = 'queued', cancel_requested_at = NULL, outcome_reason = NULL, error_category = NULL,
    error = NULL, result = NULL, started_at = NULL, completed_at = NULL, failed_at = NULL,
    unique_key = NULL, unique_while = NULL
WHERE id = %(job_id)s
"""
# As a claim does it; a cancel stands, since nobody knows of which run it was.
_COUNT_UP = """
WITH job AS (
    UPDATE hybridjobs.background_jobs
    SET attempt = %(attempt)s, status = 'queued', stage = NULL, dispatched_at = now(),
        started_at = NULL, cancel_requested_at = %(cancel_requested_at)s,
        namespace = %(namespace)s, resource_name = %(name)s, resource_uid = %(uid)s,
        changed_in = pg_current_xact_id(),
        unique_key = CASE WHEN unique_while = 'open' THEN unique_key END,
        unique_while = CASE WHEN unique_while = 'open' THEN unique_while END
    WHERE id = %(job_id)s
    RETURNING id, type, deadline_seconds
)
INSERT INTO hybridjobs.job_attempts
    (job_id, attempt, runner, type_generation, deadline_seconds, dispatched_at, hybridjob_uid)
SELECT job.id, number, 'pod', job_type.generation,
       coalesce(job.deadline_seconds, (job_type.spec->>'deadlineSeconds')::int, 900), now(), %(uid)s
FROM job LEFT JOIN hybridjobs.job_types job_type USING (type)
CROSS JOIN generate_series(%(behind)s::int4 + 1, %(attempt)s::int4) AS number
"""
# Whether it spent a retry nobody knows; it does not count as a loss that spends none.
_LOSE = """
UPDATE hybridjobs.job_attempts
SET ended_at = greatest(now(), claimed_at, started_at), outcome = 'lost', reason = 'Restored',
    message = 'the database was restored from a backup, and the cluster has a later attempt',
    error_category = 'infrastructure'
WHERE job_id = %(job_id)s AND attempt < %(attempt)s AND ended_at IS NULL
"""


async def count_up(
    connection: AsyncConnection[DictRow],
    job_id: UUID,
    attempt: int,
    *,
    namespace: str,
    name: str,
    uid: str,
) -> None:
    """The HybridJob says a later attempt than the row: it is the open one now.

    Those before it that are open, or missing, are lost. In the caller's transaction. Changes
    nothing where the row has that attempt.
    """
    given = {"job_id": job_id, "attempt": attempt}
    behind = await (await connection.execute(_BEHIND, given)).fetchone()
    if behind is None:
        return
    if behind["is_over"]:
        await connection.execute(_REOPEN, given)
    await connection.execute(
        _COUNT_UP,
        {
            **given,
            "behind": behind["attempt"],
            "cancel_requested_at": behind["cancel_requested_at"],
            "namespace": namespace,
            "name": name,
            "uid": uid,
        },
    )
    await connection.execute(_LOSE, given)
