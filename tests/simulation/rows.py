"""The rows of the queue's tables in memory. They are replaced, never changed in place."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

Row = dict[str, Any]
Parameters = Any
Rows = list[Row]
Statements = dict[str, Callable[[Parameters], Rows]]

TERMINAL = ("completed", "failed", "cancelled")
NEW_JOB: Row = {
    "status": "queued",
    "result": None,
    "error": None,
    "retry_count": 0,
    "started_at": None,
    "completed_at": None,
    "failed_at": None,
    "attempt": 0,
    "dispatched_at": None,
    "outcome_reason": None,
    "error_category": None,
    "cancel_requested_at": None,
    "namespace": None,
    "resource_name": None,
    "resource_uid": None,
    "stage": "ready",
}
NEW_ATTEMPT: Row = {
    "dispatched_at": None,
    "hybridjob_uid": None,
    "job_uid": None,
    "pod_name": None,
    "pod_uid": None,
    "started_at": None,
    "ended_at": None,
    "outcome": None,
    "reason": None,
    "error_category": None,
    "exit_code": None,
    "message": None,
    "reported": None,
    "spent_retry": None,
    "log_tail": None,
}
JOB_COLUMNS = (
    *NEW_JOB,
    "id",
    "type",
    "priority",
    "created_at",
    "run_at",
    "order_key",
    "max_retries",
    "deadline_seconds",
    "source",
    "key",
)
ATTEMPT_COLUMNS = (*NEW_ATTEMPT, "job_id", "attempt", "runner", "deadline_seconds", "claimed_at")


class Kept:
    """`background_jobs`, `job_attempts` and `job_types`; `changes` counts the writes."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.types: dict[str, Row] = {}
        self.jobs: dict[UUID, Row] = {}
        self.attempts: dict[tuple[UUID, int], Row] = {}
        self.changes = 0

    def set_job(self, job: Row, /, **changes: Any) -> Row:
        """The job with these changes, and the stage that follows."""
        new = {**job, **changes}
        waits = new["status"] == "queued" and new["dispatched_at"] is None
        too_early = new["stage"] == "ready" and new["run_at"] > self.now()
        if (new["stage"] is not None) != waits or too_early:
            new["stage"] = self.stage(new["run_at"]) if waits else None
        ends_cancelled = new["status"] == "cancelled" and job["status"] != "cancelled"
        if ends_cancelled and new["cancel_requested_at"] is None:
            new["cancel_requested_at"] = self.now()
        self.jobs[new["id"]] = new
        self.changes += 1
        return new

    def set_attempt(self, attempt: Row, /, **changes: Any) -> Row:
        """The attempt with these changes."""
        new = {**attempt, **changes}
        self.attempts[new["job_id"], new["attempt"]] = new
        self.changes += 1
        return new

    def set_type(self, row: Row) -> None:
        """That type is this now."""
        self.types[row["type"]] = row

    def stage(self, run_at: datetime) -> str:
        """Where a job waits that may not begin before."""
        return "scheduled" if run_at > self.now() else "ready"

    def find(self, job_ids: Iterable[UUID]) -> Rows:
        """Those of the jobs that there are."""
        return [self.jobs[job_id] for job_id in job_ids if job_id in self.jobs]

    def open(self, given: Mapping[str, Any]) -> tuple[Row, Row] | None:
        """The job and its attempt, which must be open."""
        attempt = self.attempts.get((given["job_id"], given["attempt"]))
        if attempt is None or attempt["ended_at"] is not None:
            return None
        return self.jobs[given["job_id"]], attempt

    def point(self, job: Row, given: Mapping[str, Any]) -> None:
        """The HybridJob that stands for the job."""
        self.set_job(
            job,
            namespace=given["namespace"],
            resource_name=given["name"],
            resource_uid=given["uid"],
        )


def place_of(row: Row) -> tuple[UUID, int]:
    """Which attempt it is."""
    return row["job_id"], row["attempt"]
