"""What the statements of store/attempts.py and store/outcome.py do, on rows in memory."""

from datetime import timedelta
from uuid import UUID

import psycopg

from hybridjobs import codec
from hybridjobs.store import attempts, outcome
from tests.simulation.rows import (
    NEW_ATTEMPT,
    TERMINAL,
    Kept,
    Parameters,
    Row,
    Rows,
    Statements,
    place_of,
)

_NO_ATTEMPT: Row = {**NEW_ATTEMPT, "claimed_at": None, "deadline_seconds": None}


class AttemptStatements:
    """How attempts begin and end, and what follows for their jobs."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self.all: Statements = {
            attempts._READ: self._read,
            attempts._BIND_HYBRIDJOB: self._bind_hybridjob,
            attempts._BIND_JOB: self._bind_job,
            attempts._START: self._start,
            attempts._REPORT: self._report,
            attempts._OPEN_DISPATCHED: self._open_dispatched,
            attempts._STATUSES: self._statuses,
            attempts._ENDED: self._ended,
            outcome._LOCK: self._lock,
            outcome._FREE_RETRIES: self._free_retries,
            outcome._END_AND_FINISH: lambda given: self._end(given, again=False),
            outcome._END_AND_AGAIN: lambda given: self._end(given, again=True),
            outcome._EVIDENCE: self._evidence,
            outcome._CANCEL: self._cancel,
        }

    # store/attempts.py

    def _read(self, given: Parameters) -> Rows:
        job = self._kept.jobs.get(given[0])
        if job is None:
            return []
        last = self._kept.attempts.get((job["id"], job["attempt"]), _NO_ATTEMPT)
        ended = job["completed_at"] or job["failed_at"]
        duration = None
        if job["started_at"] and ended:
            duration = round((ended - job["started_at"]) / timedelta(milliseconds=1))
        is_open = last["claimed_at"] is not None and last["ended_at"] is None
        return [
            {
                "job_id": job["id"],
                **{
                    name: job[name]
                    for name in (
                        *("type", "status", "payload", "error", "run_at", "attempt"),
                        *("resource_name", "resource_uid", "traceparent"),
                        *("started_at", "outcome_reason"),
                    )
                },
                "cancel_requested": job["cancel_requested_at"] is not None,
                "duration_ms": duration,
                "finished_at": ended,
                "open_attempt": job["attempt"] if is_open else None,
                "deadline_seconds": last["deadline_seconds"] or job["deadline_seconds"],
                "claimed_at": last["claimed_at"],
                "attempt_started_at": last["started_at"],
                "attempt_ended_at": last["ended_at"],
                **{
                    name: last[name]
                    for name in ("hybridjob_uid", "job_uid", "pod_name", "exit_code", "reported")
                },
                "has_log": last["log_tail"] is not None,
            }
        ]

    def _bind_hybridjob(self, given: Parameters) -> Rows:
        found = self._kept.open(given)
        if found is None:
            return []
        job, attempt = found
        attempt = self._kept.set_attempt(
            attempt,
            hybridjob_uid=attempt["hybridjob_uid"] or given["uid"],
            dispatched_at=attempt["dispatched_at"] or self._kept.now(),
        )
        if attempt["hybridjob_uid"] == given["uid"] and job["resource_uid"] is None:
            self._kept.point(job, given)
        return [{"hybridjob_uid": attempt["hybridjob_uid"]}]

    def _bind_job(self, given: Parameters) -> Rows:
        found = self._kept.open(given)
        if found is None:
            return []
        attempt = self._kept.set_attempt(found[1], job_uid=found[1]["job_uid"] or given["uid"])
        return [{"job_uid": attempt["job_uid"]}]

    def _start(self, given: Parameters) -> Rows:
        found = self._kept.open(given)
        if found is None or found[1]["pod_uid"] not in (None, given["pod_uid"]):
            return []
        attempt = self._kept.set_attempt(
            found[1],
            started_at=found[1]["started_at"] or given["started_at"],
            pod_name=given["pod_name"],
            pod_uid=given["pod_uid"],
        )
        self._kept.set_job(found[0], status="processing", started_at=attempt["started_at"])
        return [{"id": given["job_id"]}]

    def _report(self, given: Parameters) -> Rows:
        found = self._kept.open(given)
        if found is None:
            return []
        self._kept.set_attempt(found[1], reported=codec.loads(given["reported"]))
        return [{"job_id": given["job_id"]}]

    def _open_dispatched(self, given: Parameters) -> Rows:
        return [
            {
                **{name: each[name] for name in ("job_id", "attempt", "hybridjob_uid", "job_uid")},
                "resource_name": self._kept.jobs[each["job_id"]]["resource_name"],
                "cancel_requested": self._kept.jobs[each["job_id"]]["cancel_requested_at"]
                is not None,
                "settled": each["dispatched_at"] < self._kept.now() - given["settled"],
            }
            for each in sorted(self._kept.attempts.values(), key=place_of)
            if each["ended_at"] is None
            and each["dispatched_at"] is not None
            and place_of(each) > (given["job_id"], given["attempt"])
        ][: given["limit"]]

    def _ended(self, given: Parameters) -> Rows:
        places = list(zip(given["job_ids"], given["attempts"], strict=True))
        found = [self._kept.attempts[place] for place in places if place in self._kept.attempts]
        return [
            {
                **dict(zip(("job_id", "attempt"), place_of(each), strict=True)),
                "ended": each["ended_at"] is not None,
            }
            for each in found
        ]

    def _statuses(self, given: Parameters) -> Rows:
        return [{"id": job["id"], "status": job["status"]} for job in self._kept.find(given[0])]

    # store/outcome.py

    def _lock(self, given: Parameters) -> Rows:
        found = self._kept.find(sorted(given[0]))
        return [
            {
                **{name: job[name] for name in ("id", "retry_count", "max_retries", "priority")},
                "cancel_requested": job["cancel_requested_at"] is not None,
                "retry": self._retry_of(job["type"]),
                "now": self._kept.now(),
            }
            for job in found
        ]

    def _retry_of(self, type_: str) -> object:
        return self._kept.types[type_]["spec"].get("retry") if type_ in self._kept.types else None

    def _free_retries(self, given: Parameters) -> Rows:
        counts: dict[tuple[UUID, str], int] = {}
        for each in self._kept.attempts.values():
            if each["job_id"] in given[0] and each["spent_retry"] is False:
                key = each["job_id"], each["outcome"]
                counts[key] = counts.get(key, 0) + 1
        return [
            {"job_id": job_id, "outcome": ended_as, "free_retries": number}
            for (job_id, ended_as), number in counts.items()
        ]

    def _end(self, columns: Parameters, *, again: bool) -> Rows:
        answers = []
        for values in zip(*columns.values(), strict=True):
            given = dict(zip(columns, values, strict=True))
            job = self._kept.jobs.get(given["job_id"])
            if job is None:
                continue
            found = self._kept.open(given)
            if found and given["outcome"] == "never_started" and found[1]["started_at"] is not None:
                found = None
            answers.append(
                {
                    **{name: job[name] for name in ("id", "status", "type", "traceparent")},
                    "changed": found is not None,
                }
            )
            if found is not None:
                self._end_open(*found, given, again=again)
                attempt = self._kept.attempts[place_of(given)]
                names = ("claimed_at", "started_at", "ended_at")
                answers[-1] |= {name: attempt[name] for name in names}
        return answers

    def _end_open(self, job: Row, attempt: Row, given: Row, *, again: bool) -> None:
        result = given["result"]
        if result is not None and "\\u0000" in result:
            raise psycopg.errors.UntranslatableCharacter
        times = (
            given["ended_at"] or self._kept.now(),
            *(attempt["claimed_at"], attempt["started_at"], given["started_at"]),
        )
        attempt = self._kept.set_attempt(
            attempt,
            ended_at=max(each for each in times if each is not None),
            outcome=given["outcome"],
            reason=given["reason"],
            error_category=given["category"],
            exit_code=given["exit_code"],
            message=given["message"],
            log_tail=attempt["log_tail"] if given["log_tail"] is None else given["log_tail"],
            started_at=attempt["started_at"] or given["started_at"],
            pod_name=given["pod_name"] or attempt["pod_name"],
            spent_retry=given["spent_retry"],
        )
        ended_at, started_at = attempt["ended_at"], attempt["started_at"]
        changes: Row = {
            "dispatched_at": None,
            "error": given["error"],
            "outcome_reason": given["reason"],
            "error_category": given["category"],
        }
        if again:
            changes |= {
                "status": "queued",
                "run_at": given["run_at"],
                "order_key": given["order_key"],
                "started_at": None,
                "stage": self._kept.stage(given["run_at"]),
                "retry_count": job["retry_count"] + given["spent_retry"],
            }
        else:
            completed = given["status"] == "completed"
            changes |= {
                "status": given["status"],
                "stage": None,
                "result": None if result is None else codec.loads(result),
                "started_at": (started_at or ended_at) if completed else started_at,
                "completed_at": ended_at if completed else None,
                "failed_at": ended_at if given["status"] == "failed" else None,
            }
        self._kept.set_job(job, **changes)

    def _evidence(self, given: Parameters) -> Rows:
        attempt = self._kept.attempts.get((given["job_id"], given["attempt"]))
        if attempt is not None and attempt["ended_at"] is not None:
            names = ("log_tail", "exit_code", "pod_name")
            known = {name: attempt[name] for name in names if attempt[name] is not None}
            self._kept.set_attempt(attempt, **{**{name: given[name] for name in names}, **known})
        return []

    def _cancel(self, given: Parameters) -> Rows:
        job_id, reason = given
        job = self._kept.jobs.get(job_id)
        if job is None or job["status"] in TERMINAL:
            return [{"status": None}]
        asked_at = job["cancel_requested_at"] or self._kept.now()
        if job["stage"] is None:
            job = self._kept.set_job(job, cancel_requested_at=asked_at)
        else:
            job = self._kept.set_job(
                job,
                status="cancelled",
                outcome_reason=reason,
                stage=None,
                cancel_requested_at=asked_at,
            )
        return [{"status": job["status"]}]
