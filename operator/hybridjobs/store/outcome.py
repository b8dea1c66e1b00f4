"""How attempts end: once each, in one transaction with what follows for the job."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import isfinite
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs import codec, policy
from hybridjobs.ids import new_id
from hybridjobs.model import AttemptEnd, Outcome, Retry, Status
from hybridjobs.store.group_commit import GroupCommit

_MAX_RETRY_AFTER_SECONDS = 7 * 86_400.0

# The job first, then the attempt: one lock order everywhere.
_LOCK = """
SELECT job.status, job.attempt, job.retry_count, job.max_retries, job.priority,
       job.cancel_requested_at IS NOT NULL AS cancel_requested, job_type.spec->'retry' AS retry,
       now() AS now
FROM hybridjobs.background_jobs job LEFT JOIN hybridjobs.job_types job_type USING (type)
WHERE job.id = %(job_id)s FOR UPDATE OF job
"""
_END = """
UPDATE hybridjobs.job_attempts attempt
SET ended_at = greatest(coalesce(%(ended_at)s, now()), claimed_at, attempt.started_at,
                        %(started_at)s),
    outcome = %(outcome)s,
    reason = %(reason)s, error_category = %(category)s, exit_code = %(exit_code)s,
    message = %(message)s, log_tail = coalesce(%(log_tail)s, log_tail),
    started_at = coalesce(attempt.started_at, %(started_at)s),
    pod_name = coalesce(%(pod_name)s, pod_name), spent_retry = %(spent_retry)s,
    progress = (SELECT progress FROM hybridjobs.job_heartbeats beat
                WHERE beat.job_id = attempt.job_id AND beat.attempt = attempt.attempt)
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND ended_at IS NULL
RETURNING started_at, ended_at, progress
"""
_FREE_RETRIES = """
SELECT count(*) AS free_retries FROM hybridjobs.job_attempts
WHERE job_id = %(job_id)s AND outcome = %(outcome)s AND NOT spent_retry
"""
_FINISH = """
UPDATE hybridjobs.background_jobs
SET status = %(status)s, result = %(result)s::jsonb, error = %(error)s,
    started_at = CASE WHEN %(status)s = 'completed'
                      THEN coalesce(%(started_at)s, %(ended_at)s) ELSE %(started_at)s END,
    completed_at = CASE WHEN %(status)s = 'completed' THEN %(ended_at)s::timestamptz END,
    failed_at = CASE WHEN %(status)s = 'failed' THEN %(ended_at)s::timestamptz END,
    outcome_reason = %(reason)s, error_category = %(category)s,
    progress = coalesce(%(progress)s::jsonb, progress)
WHERE id = %(job_id)s
"""
_AGAIN = """
UPDATE hybridjobs.background_jobs
SET status = 'queued', run_at = %(run_at)s, order_key = %(order_key)s, dispatched_at = NULL,
    started_at = NULL, retry_count = retry_count + %(spent)s, error = %(error)s,
    outcome_reason = %(reason)s, error_category = %(category)s,
    progress = coalesce(%(progress)s::jsonb, progress)
WHERE id = %(job_id)s
"""
_DEAD_LETTER = """
INSERT INTO hybridjobs.dead_letter_queue
    (id, original_job_id, type, payload, error_history, failure_count, error_category,
     first_failed_at, last_failed_at)
SELECT %(id)s, job.id, job.type, job.payload,
       jsonb_agg(jsonb_build_object('attempt', attempt.attempt, 'outcome', attempt.outcome,
                                    'reason', attempt.reason, 'message', attempt.message,
                                    'endedAt', attempt.ended_at) ORDER BY attempt.attempt),
       count(*), %(category)s, min(attempt.ended_at), max(attempt.ended_at)
FROM hybridjobs.background_jobs job
JOIN hybridjobs.job_attempts attempt ON attempt.job_id = job.id
WHERE job.id = %(job_id)s
GROUP BY job.id
ON CONFLICT (original_job_id) WHERE resolved_at IS NULL DO NOTHING
"""
_EVIDENCE = """
UPDATE hybridjobs.job_attempts
SET log_tail = coalesce(log_tail, %(log_tail)s), exit_code = coalesce(exit_code, %(exit_code)s),
    pod_name = coalesce(pod_name, %(pod_name)s)
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND ended_at IS NOT NULL
"""
_CANCEL_QUEUED = """
UPDATE hybridjobs.background_jobs
SET status = 'cancelled', cancel_requested_at = coalesce(cancel_requested_at, now()),
    outcome_reason = %(reason)s
WHERE id = %(job_id)s AND status = 'queued' AND dispatched_at IS NULL
RETURNING status
"""
_REQUEST_CANCEL = """
UPDATE hybridjobs.background_jobs SET cancel_requested_at = coalesce(cancel_requested_at, now())
WHERE id = %(job_id)s AND status IN ('queued', 'processing')
RETURNING status
"""
_INLINE_SUCCESS = """
WITH input AS (
    SELECT * FROM unnest(%(ids)b::uuid[], %(results)b::text[], %(logs)b::text[])
         AS input (job_id, result, log_tail)
), locked AS (
    SELECT id FROM hybridjobs.background_jobs WHERE id = ANY(%(ids)b::uuid[])
    ORDER BY id FOR UPDATE
), ended AS (
    UPDATE hybridjobs.job_attempts attempt
    SET ended_at = now(), outcome = 'succeeded', reason = 'Completed', log_tail = input.log_tail,
        spent_retry = false
    FROM input JOIN locked ON locked.id = input.job_id
    WHERE attempt.job_id = input.job_id AND attempt.attempt = 1 AND attempt.ended_at IS NULL
    RETURNING attempt.job_id
)
UPDATE hybridjobs.background_jobs job
SET status = 'completed', result = input.result::jsonb, completed_at = now(),
    outcome_reason = 'Completed'
FROM input JOIN ended USING (job_id) WHERE job.id = input.job_id
RETURNING job.id
"""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of the job; `changed` False: the attempt was closed already."""

    changed: bool
    status: Status
    run_at: datetime | None = None


async def record_outcome(
    connection: AsyncConnection[DictRow], job_id: UUID, attempt: int, end: AttemptEnd
) -> Recorded | None:
    """Close the attempt and move the job on; None where there is no such job.

    Runs in the caller's transaction. The first outcome of an attempt wins; a later one adds only
    evidence that was missing (log tail, exit code). Data that Postgres refuses in a result
    (psycopg.DataError) is the caller's to turn into a failure.
    """
    end = _storable_end(end)
    names = {"job_id": job_id, "attempt": attempt}
    job = await (await connection.execute(_LOCK, names)).fetchone()
    if job is None:
        return None
    free = await (
        await connection.execute(_FREE_RETRIES, {**names, "outcome": end.outcome})
    ).fetchone()
    history = policy.JobHistory(
        retry_count=job["retry_count"],
        max_retries=job["max_retries"],
        cancel_requested=job["cancel_requested"],
        free_retries=free["free_retries"] if free else 0,
    )
    retry = Retry.model_validate(job["retry"] or {})
    decision = policy.after_attempt(end, history, retry, now=job["now"], jitter=policy.jitter())
    category = policy.category(end)
    ended = await (
        await connection.execute(
            _END,
            {
                **names,
                "ended_at": end.ended_at,
                "outcome": end.outcome,
                "reason": end.reason,
                "category": category,
                "exit_code": end.exit_code,
                "message": end.message,
                "log_tail": end.log_tail,
                "started_at": end.started_at,
                "pod_name": end.pod_name,
                "spent_retry": isinstance(decision, policy.Again) and decision.spends_retry,
            },
        )
    ).fetchone()
    if ended is None:
        await add_evidence(connection, job_id, attempt, end)
        return Recorded(changed=False, status=Status(job["status"]))
    follow = {
        **names,
        "error": None if end.outcome is Outcome.SUCCEEDED else end.message or end.reason,
        "reason": end.reason,
        "category": category,
        "progress": None if ended["progress"] is None else codec.dumps(ended["progress"]),
    }
    if isinstance(decision, policy.Again):
        await connection.execute(
            _AGAIN,
            {
                **follow,
                "run_at": decision.run_at,
                "order_key": policy.order_key(decision.run_at, job["priority"]),
                "spent": int(decision.spends_retry),
            },
        )
        return Recorded(changed=True, status=Status.QUEUED, run_at=decision.run_at)
    await connection.execute(
        _FINISH,
        {
            **follow,
            "status": decision.status,
            "result": end.result,
            "started_at": ended["started_at"],
            "ended_at": ended["ended_at"],
        },
    )
    if decision.status is Status.FAILED:
        await connection.execute(_DEAD_LETTER, {**names, "id": new_id(), "category": category})
    return Recorded(changed=True, status=decision.status)


async def add_evidence(
    connection: AsyncConnection[DictRow], job_id: UUID, attempt: int, end: AttemptEnd
) -> None:
    """Add to a closed attempt what was not known when it closed; its outcome stands."""
    await connection.execute(
        _EVIDENCE,
        {
            "job_id": job_id,
            "attempt": attempt,
            "log_tail": _storable(end.log_tail),
            "exit_code": end.exit_code,
            "pod_name": end.pod_name,
        },
    )


async def request_cancel(
    connection: AsyncConnection[DictRow], job_id: UUID, *, reason: str = "Cancelled"
) -> Status | None:
    """Cancel a queued job at once, ask a running one to end; None: it is over, or unknown."""
    for statement in (_CANCEL_QUEUED, _REQUEST_CANCEL):
        cursor = await connection.execute(statement, {"job_id": job_id, "reason": reason})
        if row := await cursor.fetchone():
            return Status(row["status"])
    return None


def _storable(text: str | None) -> str | None:
    # Postgres text holds every character but NUL, and a container may write NUL.
    return None if text is None else text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _storable_end(end: AttemptEnd) -> AttemptEnd:
    """What a worker said of its failure, within what can be stored and added to a time."""
    after = end.retry_after_seconds
    if after is not None:
        after = min(max(after, 0.0), _MAX_RETRY_AFTER_SECONDS) if isfinite(after) else None
    return replace(
        end,
        message=_storable(end.message),
        log_tail=_storable(end.log_tail),
        retry_after_seconds=after,
    )


@dataclass(frozen=True, slots=True)
class InlineSuccess:
    """A quick job's result (JSON text), from the process that holds its lease."""

    job_id: UUID
    result: str
    log_tail: str


class InlineOutcomes:
    """Records the successes of quick jobs, many to a commit; `run()` must be running."""

    def __init__(self, url: str) -> None:
        self._commits: GroupCommit[InlineSuccess, bool] = GroupCommit(url, _flush_successes)

    async def record(self, success: InlineSuccess) -> bool:
        """Whether the lease was still held; False: the attempt was closed by others."""
        return await self._commits.submit(success)

    async def run(self) -> None:
        """Commit until cancelled."""
        await self._commits.run()


async def _flush_successes(
    connection: AsyncConnection[DictRow], successes: Sequence[InlineSuccess]
) -> list[bool]:
    cursor = await connection.execute(
        _INLINE_SUCCESS,
        {
            "ids": [success.job_id for success in successes],
            "results": [success.result for success in successes],
            "logs": [_storable(success.log_tail) for success in successes],
        },
    )
    ended = {row["id"] for row in await cursor.fetchall()}
    return [success.job_id in ended for success in successes]
