"""The inbox of jobs that failed for good: read it, run them once more, or close it with a note."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow, class_row

from hybridjobs.model import ErrorCategory
from hybridjobs.store.conditions import given_conditions

_SUMMARY = """
    id, original_job_id AS job_id, type, failure_count, error_category, first_failed_at,
    last_failed_at, error_history->-1->>'message' AS error, moved_to_dlq_at AS created_at,
    resolved_at, resolved_by, resolution_notes"""
_GET = f"""
SELECT {_SUMMARY}, payload::text AS payload, error_history
FROM hybridjobs.dead_letter_queue WHERE id = %s
"""  # noqa: S608 - of constants
_LIST = """
SELECT {summary} FROM hybridjobs.dead_letter_queue
WHERE {conditions}
ORDER BY id DESC LIMIT %(limit)s
"""
_CONDITIONS = {
    "type": "type = %(type)s",
    "category": "error_category = %(category)s",
    "since": "last_failed_at >= %(since)s",
    "until": "last_failed_at < %(until)s",
    "resolved": "(resolved_at IS NOT NULL) = %(resolved)s",
    "before": "id < %(before)s",
}
_REDRIVE = """
SELECT redriven AS job_id FROM hybridjobs.redrive_dead_letters(
    letter => %(letter)s, only_type => %(type)s, only_category => %(category)s,
    failed_since => %(since)s, failed_until => %(until)s, at_most => %(at_most)s,
    per_second => %(per_second)s::numeric, by => %(by)s) AS redriven
"""
_RESOLVE = "SELECT hybridjobs.resolve_dead_letter(%(letter)s, %(notes)s, %(by)s) AS resolved"


@dataclass(frozen=True, slots=True)
class DeadLetterSummary:
    """A line of a listing; `error` is the last message."""

    id: UUID
    job_id: UUID
    type: str
    failure_count: int
    error_category: str
    first_failed_at: datetime
    last_failed_at: datetime
    error: str | None
    created_at: datetime
    resolved_at: datetime | None
    resolved_by: str | None
    resolution_notes: str | None


@dataclass(frozen=True, slots=True)
class DeadLetter(DeadLetterSummary):
    """A row of `dead_letter_queue`. `payload` is JSON text, exact.

    `error_history` has an object for each attempt that failed: attempt, outcome, reason, category,
    message, endedAt.
    """

    payload: str
    error_history: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters: those for which all hold that are given.

    `since` and `until` bound the time of the last failure, the end excluded.
    """

    type: str | None = None
    category: ErrorCategory | None = None
    since: datetime | None = None
    until: datetime | None = None


async def get_dead_letter(
    connection: AsyncConnection[DictRow], letter_id: UUID
) -> DeadLetter | None:
    """The dead letter; None where there is none of that id."""
    async with connection.cursor(row_factory=class_row(DeadLetter)) as cursor:
        return await (await cursor.execute(_GET, [letter_id])).fetchone()


async def list_dead_letters(
    connection: AsyncConnection[DictRow],
    which: DeadLetterFilter,
    *,
    limit: int,
    resolved: bool | None = None,
    before: UUID | None = None,
) -> list[DeadLetterSummary]:
    """A page of dead letters, the newest first; `before` is the id the page before ended with."""
    values = {**asdict(which), "resolved": resolved, "before": before}
    conditions, given = given_conditions(_CONDITIONS, values)
    statement = _LIST.format(summary=_SUMMARY, conditions=conditions)
    async with connection.cursor(row_factory=class_row(DeadLetterSummary)) as cursor:
        return await (await cursor.execute(statement, {**given, "limit": limit})).fetchall()


async def redrive_dead_letter(
    connection: AsyncConnection[DictRow], letter_id: UUID, *, by: str
) -> UUID | None:
    """Run the job once more, now, and return its id; None: resolved, unknown, or in no such state.

    Afterwards the dead letter is resolved.
    """
    jobs = await _redrive(connection, DeadLetterFilter(), letter_id, at_most=1, rate=1.0, by=by)
    return jobs[0] if jobs else None


async def redrive_dead_letters(
    connection: AsyncConnection[DictRow],
    which: DeadLetterFilter,
    *,
    at_most: int,
    per_second: float,
    by: str,
) -> list[UUID]:
    """Run the jobs of unresolved dead letters once more, the oldest first, `per_second` of them.

    Returns their ids, at most `at_most`.
    """
    return await _redrive(connection, which, None, at_most=at_most, rate=per_second, by=by)


async def resolve_dead_letter(
    connection: AsyncConnection[DictRow], letter_id: UUID, *, notes: str, by: str
) -> bool:
    """Close the dead letter without another run; False: there is none, or it is resolved."""
    parameters = {"letter": letter_id, "notes": notes, "by": by}
    row = await (await connection.execute(_RESOLVE, parameters)).fetchone()
    return row is not None and bool(row["resolved"])


async def _redrive(
    connection: AsyncConnection[DictRow],
    which: DeadLetterFilter,
    letter_id: UUID | None,
    *,
    at_most: int,
    rate: float,
    by: str,
) -> list[UUID]:
    parameters = {
        **asdict(which),
        "letter": letter_id,
        "at_most": at_most,
        "per_second": rate,
        "by": by,
    }
    cursor = await connection.execute(_REDRIVE, parameters)
    return [row["job_id"] for row in await cursor.fetchall()]
