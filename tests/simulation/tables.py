"""The queue's tables in memory: what each statement of the store does, for one job at a time.

The store's own functions run on it unchanged. That it does what Postgres does is the matter of
test_tables.py, which drives both alike.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from hybridjobs.store import jobs
from tests.simulation.attempt_statements import AttemptStatements
from tests.simulation.queue_statements import QueueStatements
from tests.simulation.rows import NEW_JOB, TERMINAL, Kept, Parameters, Row, Rows, Statements
from tests.simulation.type_statements import TypeStatements

SET_BY_HAND = "UPDATE hybridjobs.background_jobs SET status = %(status)s WHERE id = %(id)s"

_FORGOTTEN = (
    *("status", "stage", "dispatched_at", "cancel_requested_at", "outcome_reason", "error"),
    *("error_category", "result", "started_at", "completed_at", "failed_at"),
)

Copy = tuple[dict[UUID, Row], dict[tuple[UUID, int], Row], dict[str, Row]]


class Tables:
    """The tables, and all that is done to them."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._kept = Kept(now)
        self._statements: Statements = {
            **AttemptStatements(self._kept).all,
            **QueueStatements(self._kept).all,
            **TypeStatements(self._kept).all,
            jobs._RETRY: self._retry,
            SET_BY_HAND: self._set_by_hand,
        }

    @property
    def changes(self) -> int:
        """How many writes there were."""
        return self._kept.changes

    def execute(self, statement: str, given: Parameters) -> Rows:
        """The rows that the statement returns, or, of a plain INSERT, one for each row it wrote."""
        return self._statements[statement](given)

    def rows(self) -> Copy:
        """All there is."""
        return self._kept.jobs, self._kept.attempts, self._kept.types

    def copy(self) -> Copy:
        """What `restore` takes."""
        return dict(self._kept.jobs), dict(self._kept.attempts), dict(self._kept.types)

    def restore(self, copy: Copy) -> None:
        """Roll back, or bring a backup back."""
        self._kept.jobs, self._kept.attempts = dict(copy[0]), dict(copy[1])
        self._kept.types = dict(copy[2])
        self._kept.changes += 1

    # People

    def _retry(self, given: Parameters) -> Rows:
        job = self._kept.jobs.get(given[0])
        if job is None or job["status"] not in ("failed", "cancelled"):
            return [{"retried": False}]
        now, retries = self._kept.now(), job["retry_count"] + 1
        if any(
            each["ended_at"] is None and each["job_id"] == job["id"]
            for each in self._kept.attempts.values()
        ):
            return [{"retried": False}]
        again = {name: NEW_JOB[name] for name in _FORGOTTEN}
        self._kept.set_job(
            job,
            **again,
            retry_count=retries,
            max_retries=max(job["max_retries"], retries),
            run_at=now,
            order_key=now - timedelta(minutes=job["priority"]),
        )
        return [{"retried": True}]

    def _set_by_hand(self, given: Parameters) -> Rows:
        """The triggers of an UPDATE of the status."""
        job, status = self._kept.jobs.get(given["id"]), given["status"]
        if job is None:
            return []
        changes: Row = {"status": status}
        if status in TERMINAL and job["status"] != status:
            undated = (
                status == "completed" and not (job["completed_at"] and job["started_at"])
            ) or (status == "failed" and not job["failed_at"])
            if job["dispatched_at"] is not None or undated:
                changes |= self._ended_by_hand(job, status)
        elif job["status"] != "queued" and status == "queued":
            names = ("cancel_requested_at", "started_at", "completed_at", "failed_at")
            if any(job[name] is not None for name in (*names, "dispatched_at")):
                attempt = self._kept.attempts.get((job["id"], job["attempt"]))
                if attempt is not None and attempt["ended_at"] is None:
                    self._close_by_hand(attempt, "queued", outcome="cancelled")
                changes |= dict.fromkeys((*names, "dispatched_at"))
                changes["stage"] = self._kept.stage(job["run_at"])
        self._kept.set_job(job, **changes)
        return []

    def _ended_by_hand(self, job: Row, status: str) -> Row:
        now = self._kept.now()
        changes: Row = {"dispatched_at": None}
        attempt = self._kept.attempts.get((job["id"], job["attempt"]))
        category = (job["error_category"] or "unknown") if status == "failed" else None
        if attempt is not None and attempt["ended_at"] is None:
            self._close_by_hand(
                attempt,
                status,
                outcome="succeeded" if status == "completed" else status,
                **({"message": job["error"]} if job["error"] else {}),
                error_category=category,
            )
            changes["outcome_reason"] = "SetByHand"
        if status == "completed":
            changes["completed_at"] = job["completed_at"] or now
            changes["started_at"] = job["started_at"] or changes["completed_at"]
        elif status == "failed":
            changes |= {"failed_at": job["failed_at"] or now, "error_category": category}
        return changes

    def _close_by_hand(self, attempt: Row, status: str, /, **changes: Any) -> None:
        times = (self._kept.now(), attempt["claimed_at"], attempt["started_at"])
        said = {"message": f"set to {status} by postgres", **changes}
        self._kept.set_attempt(
            attempt,
            ended_at=max(each for each in times if each is not None),
            reason="SetByHand",
            spent_retry=False,
            **said,
        )


class Cursor:
    """What the store reads of a cursor."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.rowcount = len(rows)

    async def fetchone(self) -> Row | None:
        return self._rows[0] if self._rows else None

    async def fetchall(self) -> Rows:
        return self._rows
