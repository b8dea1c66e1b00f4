"""How attempts end: once each, in one transaction with what follows for the job."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isfinite
from uuid import UUID

from psycopg import AsyncConnection, DataError
from psycopg.rows import DictRow

from hybridjobs import policy
from hybridjobs.model import AttemptEnd, Outcome, Retry, Status
from hybridjobs.observed import EndedAttempt, attempt_ended
from hybridjobs.store.database import Database
from hybridjobs.store.group_commit import GroupCommit
from hybridjobs.store.locks import PATIENCE

_MAX_RETRY_AFTER_SECONDS = 7 * 86_400.0

# The job first, then the attempt, and jobs by their ids: one lock order everywhere.
_LOCK = f"""
SELECT job.id, job.retry_count, job.max_retries, job.priority,
       job.cancel_requested_at IS NOT NULL AS cancel_requested, job_type.spec->'retry' AS retry,
       now() AS now
FROM hybridjobs.background_jobs job LEFT JOIN hybridjobs.job_types job_type USING (type)
CROSS JOIN {PATIENCE}
WHERE job.id = ANY(%b) ORDER BY job.id FOR UPDATE OF job
"""  # noqa: S608 - of constants
_FREE_RETRIES = """
SELECT job_id, outcome, count(*) AS free_retries FROM hybridjobs.job_attempts
WHERE job_id = ANY(%b) AND NOT spent_retry GROUP BY job_id, outcome
"""
_FINISH = """
        status = ended.status, result = ended.result::jsonb, started_at = ended.started_at,
        completed_at = CASE WHEN ended.status = 'completed' THEN ended.ended_at END,
        failed_at = CASE WHEN ended.status = 'failed' THEN ended.ended_at END"""
_AGAIN = """
        status = 'queued', run_at = ended.run_at, order_key = ended.order_key, started_at = NULL,
        retry_count = job.retry_count + ended.spent_retry::int4"""


def _end_and(follow: str) -> str:
    # The CASE leads to the attempts by their primary key: the index of the open ones, which a plain
    # `ended_at IS NULL` would use, is read as a whole.
    return f"""
WITH locked AS (
    SELECT job.id, job.status AS old_status, job.type, job.traceparent, report.*
    FROM unnest(
        %(job_id)b::uuid[], %(attempt)b::int4[], %(ended_at)b::timestamptz[], %(outcome)b::text[],
        %(reason)b::text[], %(category)b::text[], %(exit_code)b::int4[], %(message)b::text[],
        %(log_tail)b::text[], %(started_at)b::timestamptz[], %(pod_name)b::text[],
        %(error)b::text[], %(status)b::text[], %(result)b::text[], %(run_at)b::timestamptz[],
        %(order_key)b::timestamptz[], %(spent_retry)b::bool[])
    AS report (job_id, attempt, ended_at, outcome, reason, category, exit_code, message, log_tail,
               started_at, pod_name, error, status, result, run_at, order_key, spent_retry)
    JOIN hybridjobs.background_jobs job ON job.id = report.job_id
    CROSS JOIN {PATIENCE}
    WHERE job.id = ANY(%(job_id)b::uuid[]) ORDER BY job.id FOR UPDATE OF job
), ended AS (
    UPDATE hybridjobs.job_attempts attempt
    SET ended_at = greatest(coalesce(report.ended_at, now()), attempt.claimed_at,
                            attempt.started_at, report.started_at),
        outcome = report.outcome, reason = report.reason, error_category = report.category,
        exit_code = report.exit_code, message = report.message,
        log_tail = report.log_tail,
        started_at = coalesce(attempt.started_at, report.started_at),
        pod_name = coalesce(report.pod_name, attempt.pod_name), spent_retry = report.spent_retry,
        progress = (SELECT progress FROM hybridjobs.job_heartbeats beat
                    WHERE beat.job_id = attempt.job_id AND beat.attempt = attempt.attempt)
    FROM locked AS report
    WHERE attempt.job_id = report.job_id AND attempt.attempt = report.attempt
      AND CASE WHEN attempt.ended_at IS NULL THEN true ELSE false END
      -- Who waited for its start may wake long after it.
      AND (report.outcome <> 'never_started' OR attempt.started_at IS NULL)
    RETURNING attempt.job_id, attempt.claimed_at, attempt.started_at, attempt.ended_at,
              attempt.progress,
              report.error, report.reason, report.category, report.status, report.result,
              report.run_at, report.order_key, report.spent_retry
), moved AS (
    UPDATE hybridjobs.background_jobs job
    SET {follow}, dispatched_at = NULL, error = ended.error, outcome_reason = ended.reason,
        changed_in = pg_current_xact_id(), error_category = ended.category,
        progress = coalesce(ended.progress, job.progress)
    FROM ended WHERE job.id = ended.job_id
)
SELECT locked.id, locked.old_status AS status, locked.type, locked.traceparent, ended.claimed_at,
       ended.started_at, ended.ended_at, ended.job_id IS NOT NULL AS changed
FROM locked LEFT JOIN ended ON ended.job_id = locked.id
"""  # noqa: S608 - of constants


_END_AND_FINISH, _END_AND_AGAIN = _end_and(_FINISH), _end_and(_AGAIN)
_EVIDENCE = f"""
UPDATE hybridjobs.job_attempts
SET log_tail = coalesce(log_tail, %(log_tail)s), exit_code = coalesce(exit_code, %(exit_code)s),
    pod_name = coalesce(pod_name, %(pod_name)s)
FROM {PATIENCE}
WHERE job_id = %(job_id)s AND attempt = %(attempt)s AND ended_at IS NOT NULL
"""  # noqa: S608 - of constants
_CANCEL = f"SELECT hybridjobs.cancel_job(%s, %s) AS status FROM {PATIENCE}"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Report:
    """An attempt, and how it ended."""

    job_id: UUID
    attempt: int
    end: AttemptEnd


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of the job; `changed` False: the attempt was closed, or has started after all."""

    changed: bool
    status: Status
    run_at: datetime | None = None


class Outcomes:
    """Records the ends of attempts, many to a commit; `run()` must be running."""

    def __init__(self, url: str) -> None:
        self._commits: GroupCommit[Report, Recorded | None] = GroupCommit(
            url, _flush, lanes=2, max_batch=256
        )

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
    evidence that was missing (log tail, exit code). `never_started` changes nothing of an attempt
    that has started. Data that Postgres refuses in a result
    (psycopg.DataError) is the caller's to turn into a failure.
    """
    [recorded] = await record_outcomes(connection, [Report(job_id, attempt, end)])
    return recorded


async def record_final_outcome(
    database: Database, job_id: UUID, attempt: int, end: AttemptEnd
) -> Recorded | None:
    """As `record_outcome`, committed; a result that Postgres refuses makes a failure of it."""
    try:
        async with database.transaction() as connection:
            return await record_outcome(connection, job_id, attempt, end)
    except DataError as error:
        # JSON that Postgres cannot hold, such as \u0000: it will be no better next time.
        refused = replace(
            end,
            outcome=Outcome.PERMANENT,
            reason="InvalidResult",
            message=f"the result cannot be stored: {error.diag.message_primary}",
            result=None,
        )
        async with database.transaction() as connection:
            return await record_outcome(connection, job_id, attempt, refused)


async def record_outcomes(
    connection: AsyncConnection[DictRow], reports: Sequence[Report]
) -> list[Recorded | None]:
    """As `record_outcome`, for attempts of different jobs; one answer a report, in order.

    Where all of them succeeded it is one statement, which commits by itself.
    """
    reports = [_storable_report(report) for report in reports]
    decided = await _decide(connection, reports)
    answers: dict[UUID, Recorded] = {}
    for kind, statement in ((policy.Finish, _END_AND_FINISH), (policy.Again, _END_AND_AGAIN)):
        chosen = [each for each in decided if isinstance(each.decision, kind)]
        if chosen:
            answers |= await _end(connection, statement, chosen)
    for report in reports:
        answer = answers.get(report.job_id)
        if answer is not None and not answer.changed:
            await add_evidence(connection, report.job_id, report.attempt, report.end)
    return [answers.get(report.job_id) for report in reports]


@dataclass(frozen=True, slots=True)
class _Decided:
    report: Report
    decision: policy.Finish | policy.Again
    priority: int = 0


_COMPLETED = policy.Finish(Status.COMPLETED)


async def _decide(
    connection: AsyncConnection[DictRow], reports: Sequence[Report]
) -> list[_Decided]:
    """What follows for those jobs that are there; success needs no look at the job."""
    if all(report.end.outcome is Outcome.SUCCEEDED for report in reports):
        return [_Decided(report, _COMPLETED) for report in reports]
    cursor = await connection.execute(_LOCK, [[report.job_id for report in reports]])
    jobs = {row["id"]: row for row in await cursor.fetchall()}
    free = await _free_retries(connection, reports)
    decided: list[_Decided] = []
    for report in reports:
        job = jobs.get(report.job_id)
        if job is None:
            continue
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
        decided.append(_Decided(report, decision, job["priority"]))
    return decided


async def _free_retries(
    connection: AsyncConnection[DictRow], reports: Sequence[Report]
) -> dict[tuple[UUID, str], int]:
    """How often each job has ended with an outcome that spends no retry, where that matters."""
    asking = [each.job_id for each in reports if policy.may_retry_for_free(each.end.outcome)]
    if not asking:
        return {}
    cursor = await connection.execute(_FREE_RETRIES, [asking])
    return {(row["job_id"], row["outcome"]): row["free_retries"] for row in await cursor.fetchall()}


async def _end(
    connection: AsyncConnection[DictRow], statement: str, decided: Sequence[_Decided]
) -> dict[UUID, Recorded]:
    """Close the attempts that are open, and move their jobs on."""
    rows = [_row(each) for each in decided]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    cursor = await connection.execute(statement.encode(), columns)
    found = {row["id"]: row for row in await cursor.fetchall()}
    answers: dict[UUID, Recorded] = {}
    for each in decided:
        row = found.get(each.report.job_id)
        if row is None:
            continue
        if not row["changed"]:
            answers[each.report.job_id] = Recorded(False, Status(row["status"]))
            continue
        _tell(each.report, row)
        if isinstance(each.decision, policy.Again):
            answers[each.report.job_id] = Recorded(True, Status.QUEUED, each.decision.run_at)
        else:
            answers[each.report.job_id] = Recorded(True, each.decision.status)
    return answers


def _tell(report: Report, row: DictRow) -> None:
    """Of those whose commit fails, too: they are recorded again, which is counted again."""
    ended = EndedAttempt(
        job_id=report.job_id,
        attempt=report.attempt,
        type=row["type"],
        traceparent=row["traceparent"],
        claimed_at=row["claimed_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )
    attempt_ended(ended, report.end, datetime.now(UTC))


def _row(decided: _Decided) -> dict[str, object]:
    report, decision, end = decided.report, decided.decision, decided.report.end
    again = decision if isinstance(decision, policy.Again) else None
    return {
        "job_id": report.job_id,
        "attempt": report.attempt,
        "ended_at": end.ended_at,
        "outcome": end.outcome.value,
        "reason": end.reason,
        "category": policy.category(end),
        "exit_code": end.exit_code,
        "message": end.message,
        "log_tail": end.log_tail,
        "started_at": end.started_at,
        "pod_name": end.pod_name,
        "error": None if end.outcome is Outcome.SUCCEEDED else end.message or end.reason,
        "status": None if isinstance(decision, policy.Again) else decision.status.value,
        "result": end.result,
        "run_at": again and again.run_at,
        "order_key": again and policy.order_key(again.run_at, decided.priority),
        "spent_retry": again is not None and again.spends_retry,
    }


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
        recorded = await _recorded(connection, [report for _, report in now.values()])
        for (place, _), answer in zip(now.values(), recorded, strict=True):
            answers[place] = answer
        waiting = later
    return [answers[place] for place in range(len(reports))]


async def _recorded(
    connection: AsyncConnection[DictRow], reports: Sequence[Report]
) -> list[Recorded | None]:
    if all(report.end.outcome is Outcome.SUCCEEDED for report in reports):
        return await record_outcomes(connection, reports)
    async with connection.transaction():
        return await record_outcomes(connection, reports)


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


def _storable_report(report: Report) -> Report:
    """What a worker said of its failure, within what can be stored and added to a time."""
    end = report.end
    after = end.retry_after_seconds
    if (end.message, end.log_tail, after) == (None, None, None):
        return report
    if after is not None:
        after = min(after, _MAX_RETRY_AFTER_SECONDS) if isfinite(after) else None
    storable = replace(
        end,
        message=_storable(end.message),
        log_tail=_storable(end.log_tail),
        retry_after_seconds=after,
    )
    return replace(report, end=storable)
