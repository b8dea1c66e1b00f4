"""How attempts end: once each, in one transaction with what follows for the job."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import isfinite
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs import policy
from hybridjobs.model import AttemptEnd, Outcome, Retry, Status
from hybridjobs.store.group_commit import GroupCommit

_MAX_RETRY_AFTER_SECONDS = 7 * 86_400.0

# The job first, then the attempt, and jobs by their ids: one lock order everywhere. Whoever keeps
# a row locked, as an open session of psql may, holds up that row's outcome alone.
_LOCK = """
SELECT job.id, job.status, job.retry_count, job.max_retries, job.priority,
       job.cancel_requested_at IS NOT NULL AS cancel_requested, job_type.spec->'retry' AS retry,
       now() AS now
FROM hybridjobs.background_jobs job LEFT JOIN hybridjobs.job_types job_type USING (type)
CROSS JOIN (SELECT set_config('lock_timeout', '1s', true)) AS patience
WHERE job.id = ANY(%s) ORDER BY job.id FOR UPDATE OF job
"""
_FREE_RETRIES = """
SELECT job_id, outcome, count(*) AS free_retries FROM hybridjobs.job_attempts
WHERE job_id = ANY(%s) AND NOT spent_retry GROUP BY job_id, outcome
"""
_END = """
UPDATE hybridjobs.job_attempts attempt
SET ended_at = greatest(coalesce(report.ended_at, now()), attempt.claimed_at, attempt.started_at,
                        report.started_at),
    outcome = report.outcome, reason = report.reason, error_category = report.category,
    exit_code = report.exit_code, message = report.message,
    log_tail = coalesce(report.log_tail, attempt.log_tail),
    started_at = coalesce(attempt.started_at, report.started_at),
    pod_name = coalesce(report.pod_name, attempt.pod_name), spent_retry = report.spent_retry,
    progress = (SELECT progress FROM hybridjobs.job_heartbeats beat
                WHERE beat.job_id = attempt.job_id AND beat.attempt = attempt.attempt)
FROM unnest(
    %(job_id)b::uuid[], %(attempt)b::int4[], %(ended_at)b::timestamptz[], %(outcome)b::text[],
    %(reason)b::text[], %(category)b::text[], %(exit_code)b::int4[], %(message)b::text[],
    %(log_tail)b::text[], %(started_at)b::timestamptz[], %(pod_name)b::text[],
    %(spent_retry)b::bool[]
) AS report (job_id, attempt, ended_at, outcome, reason, category, exit_code, message, log_tail,
             started_at, pod_name, spent_retry)
WHERE attempt.job_id = report.job_id AND attempt.attempt = report.attempt
  AND attempt.ended_at IS NULL
RETURNING attempt.job_id, attempt.started_at, attempt.ended_at, attempt.progress::text AS progress
"""
_FINISH = """
UPDATE hybridjobs.background_jobs job
SET status = over.status, result = over.result::jsonb, error = over.error, stage = NULL,
    dispatched_at = NULL,
    started_at = CASE WHEN over.status = 'completed'
                      THEN coalesce(over.started_at, over.ended_at) ELSE over.started_at END,
    completed_at = CASE WHEN over.status = 'completed' THEN over.ended_at END,
    failed_at = CASE WHEN over.status = 'failed' THEN over.ended_at END,
    outcome_reason = over.reason, error_category = over.category,
    progress = coalesce(over.progress::jsonb, job.progress)
FROM unnest(
    %(job_id)b::uuid[], %(status)b::text[], %(result)b::text[], %(error)b::text[],
    %(started_at)b::timestamptz[], %(ended_at)b::timestamptz[], %(reason)b::text[],
    %(category)b::text[], %(progress)b::text[]
) AS over (job_id, status, result, error, started_at, ended_at, reason, category, progress)
WHERE job.id = over.job_id
"""
_AGAIN = """
UPDATE hybridjobs.background_jobs job
SET status = 'queued', run_at = again.run_at, order_key = again.order_key, dispatched_at = NULL,
    stage = CASE WHEN again.run_at > now() THEN 'scheduled' ELSE 'ready' END,
    started_at = NULL, retry_count = job.retry_count + again.spent, error = again.error,
    outcome_reason = again.reason, error_category = again.category,
    progress = coalesce(again.progress::jsonb, job.progress)
FROM unnest(
    %(job_id)b::uuid[], %(run_at)b::timestamptz[], %(order_key)b::timestamptz[],
    %(spent)b::int4[], %(error)b::text[], %(reason)b::text[], %(category)b::text[],
    %(progress)b::text[]
) AS again (job_id, run_at, order_key, spent, error, reason, category, progress)
WHERE job.id = again.job_id
"""
_EVIDENCE = """
UPDATE hybridjobs.job_attempts
SET log_tail = coalesce(log_tail, %(log_tail)s), exit_code = coalesce(exit_code, %(exit_code)s),
    pod_name = coalesce(pod_name, %(pod_name)s)
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND ended_at IS NOT NULL
"""
_CANCEL = "SELECT hybridjobs.cancel_job(%s, %s) AS status"


@dataclass(frozen=True, slots=True)
class Report:
    """An attempt, and how it ended."""

    job_id: UUID
    attempt: int
    end: AttemptEnd


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of the job; `changed` False: the attempt was closed already."""

    changed: bool
    status: Status
    run_at: datetime | None = None


class Outcomes:
    """Records the ends of attempts, many to a commit; `run()` must be running."""

    def __init__(self, url: str) -> None:
        self._commits: GroupCommit[Report, Recorded | None] = GroupCommit(url, _flush)

    async def record(self, job_id: UUID, attempt: int, end: AttemptEnd) -> Recorded | None:
        """As `record_outcome`, committed; InvalidInput for a result that Postgres refuses."""
        return await self._commits.submit(Report(job_id, attempt, end))

    async def run(self) -> None:
        """Commit until cancelled."""
        await self._commits.run()


async def record_outcome(
    connection: AsyncConnection[DictRow], job_id: UUID, attempt: int, end: AttemptEnd
) -> Recorded | None:
    """Close the attempt and move the job on; None where there is no such job.

    Runs in the caller's transaction. The first outcome of an attempt wins; a later one adds only
    evidence that was missing (log tail, exit code). Data that Postgres refuses in a result
    (psycopg.DataError) is the caller's to turn into a failure.
    """
    [recorded] = await record_outcomes(connection, [Report(job_id, attempt, end)])
    return recorded


async def record_outcomes(
    connection: AsyncConnection[DictRow], reports: Sequence[Report]
) -> list[Recorded | None]:
    """As `record_outcome`, for attempts of different jobs; one answer a report, in order."""
    reports = [replace(report, end=_storable_end(report.end)) for report in reports]
    cursor = await connection.execute(_LOCK, [[report.job_id for report in reports]])
    jobs = {row["id"]: row for row in await cursor.fetchall()}
    known = [report for report in reports if report.job_id in jobs]
    decided = await _decide(connection, known, jobs)
    ended = await _end(connection, decided)
    answers: dict[UUID, Recorded] = {}
    finished: list[_Follow] = []
    again: list[_Follow] = []
    for report, decision in decided:
        job = jobs[report.job_id]
        if report.job_id not in ended:
            await add_evidence(connection, report.job_id, report.attempt, report.end)
            answers[report.job_id] = Recorded(changed=False, status=Status(job["status"]))
        elif isinstance(decision, policy.Again):
            answers[report.job_id] = Recorded(True, Status.QUEUED, decision.run_at)
            again.append(_follow(report, decision, job, ended[report.job_id]))
        else:
            answers[report.job_id] = Recorded(True, decision.status)
            finished.append(_follow(report, decision, job, ended[report.job_id]))
    for statement, rows in ((_FINISH, finished), (_AGAIN, again)):
        if rows:
            await connection.execute(statement, _columns(rows))
    return [answers.get(report.job_id) for report in reports]


_Decided = tuple[Report, policy.Finish | policy.Again]
_Follow = dict[str, object]


async def _decide(
    connection: AsyncConnection[DictRow], reports: Sequence[Report], jobs: dict[UUID, DictRow]
) -> list[_Decided]:
    free: dict[tuple[UUID, str], int] = {}
    asking = [each.job_id for each in reports if policy.may_retry_for_free(each.end.outcome)]
    if asking:
        cursor = await connection.execute(_FREE_RETRIES, [asking])
        free = {
            (row["job_id"], row["outcome"]): row["free_retries"] for row in await cursor.fetchall()
        }
    decided: list[_Decided] = []
    for report in reports:
        job = jobs[report.job_id]
        history = policy.JobHistory(
            retry_count=job["retry_count"],
            max_retries=job["max_retries"],
            cancel_requested=job["cancel_requested"],
            free_retries=free.get((report.job_id, report.end.outcome), 0),
        )
        retry = Retry.model_validate(job["retry"] or {})
        decision = policy.after_attempt(
            report.end, history, retry, now=job["now"], jitter=policy.jitter()
        )
        decided.append((report, decision))
    return decided


async def _end(
    connection: AsyncConnection[DictRow], decided: Sequence[_Decided]
) -> dict[UUID, DictRow]:
    """Close the attempts that are open; those that were, by job."""
    rows: list[dict[str, object]] = [
        {
            "job_id": report.job_id,
            "attempt": report.attempt,
            "ended_at": report.end.ended_at,
            "outcome": report.end.outcome.value,
            "reason": report.end.reason,
            "category": policy.category(report.end),
            "exit_code": report.end.exit_code,
            "message": report.end.message,
            "log_tail": report.end.log_tail,
            "started_at": report.end.started_at,
            "pod_name": report.end.pod_name,
            "spent_retry": isinstance(decision, policy.Again) and decision.spends_retry,
        }
        for report, decision in decided
    ]
    if not rows:
        return {}
    cursor = await connection.execute(_END, _columns(rows))
    return {row["job_id"]: row for row in await cursor.fetchall()}


def _follow(
    report: Report, decision: policy.Finish | policy.Again, job: DictRow, ended: DictRow
) -> _Follow:
    end = report.end
    row: _Follow = {
        "job_id": report.job_id,
        "error": None if end.outcome is Outcome.SUCCEEDED else end.message or end.reason,
        "reason": end.reason,
        "category": policy.category(end),
        "progress": ended["progress"],
    }
    if isinstance(decision, policy.Again):
        row["run_at"] = decision.run_at
        row["order_key"] = policy.order_key(decision.run_at, job["priority"])
        row["spent"] = int(decision.spends_retry)
    else:
        row["status"] = decision.status.value
        row["result"] = end.result
        row["started_at"] = ended["started_at"]
        row["ended_at"] = ended["ended_at"]
    return row


def _columns(rows: Sequence[dict[str, object]]) -> dict[str, list[object]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


async def _flush(
    connection: AsyncConnection[DictRow], reports: Sequence[Report]
) -> list[Recorded | None]:
    answers: dict[int, Recorded | None] = {}
    waiting = list(enumerate(reports))
    while waiting:
        # One report a job at a time: a second one, of the same or a later attempt, sees the first.
        now: dict[UUID, tuple[int, Report]] = {}
        later = []
        for place, report in waiting:
            if report.job_id in now:
                later.append((place, report))
            else:
                now[report.job_id] = (place, report)
        async with connection.transaction():
            recorded = await record_outcomes(connection, [report for _, report in now.values()])
        for (place, _), answer in zip(now.values(), recorded, strict=True):
            answers[place] = answer
        waiting = later
    return [answers[place] for place in range(len(reports))]


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
    row = await (await connection.execute(_CANCEL, [job_id, reason])).fetchone()
    return None if row is None or row["status"] is None else Status(row["status"])


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
