"""The queue's tables in memory: what each statement of the store does, for one job at a time.

The store's own functions run on it unchanged. That it does what Postgres does is the matter of
test_tables.py, which drives both alike.
"""

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from hybridjobs import codec
from hybridjobs.model import JobType
from hybridjobs.store import attempts, claim, enqueue, jobs, outcome, resources

Row = dict[str, Any]
Parameters = Any
Rows = list[Row]

SET_BY_HAND = "UPDATE hybridjobs.background_jobs SET status = %(status)s WHERE id = %(id)s"

_TERMINAL = ("completed", "failed", "cancelled")
_NEW_JOB: Row = {
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
_NEW_ATTEMPT: Row = {
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
    *_NEW_JOB,
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
ATTEMPT_COLUMNS = (*_NEW_ATTEMPT, "job_id", "attempt", "runner", "deadline_seconds", "claimed_at")


class Tables:
    """`background_jobs` and `job_attempts`. Rows are replaced, never changed in place."""

    def __init__(self, now: Callable[[], datetime], types: Mapping[str, JobType]) -> None:
        self._now = now
        self._types = types
        self.jobs: dict[UUID, Row] = {}
        self.attempts: dict[tuple[UUID, int], Row] = {}
        self.changes = 0
        self._statements: dict[str, Callable[[Parameters], Rows]] = {
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
            resources._DISPATCHED: self._dispatched,
            resources._ADOPTED: self._adopted,
            resources._FORGET: self._forget,
            resources._HAND_OUT_AGAIN: self._hand_out_again,
            resources._FORGET_SPENT: self._forget_spent,
            resources._HELD_BY: self._held_by,
            resources._WAITED: self._waited,
            enqueue._INSERT: self._insert,
            enqueue._FIND: self._find,
            claim._TRY_LOCK: lambda _given: [{"held": True}],
            claim._LINK: lambda _given: [],
            claim._PROMOTE: self._promote,
            claim._LIVE: self._live,
            claim._TYPES: self._type_limits,
            claim._CANDIDATES: self._candidates,
            claim._CLAIM: self._claim,
            claim._CLAIMS: self._claims,
            jobs._RETRY: self._retry,
            SET_BY_HAND: self._set_by_hand,
        }

    def execute(self, statement: str, given: Parameters) -> Rows:
        """The rows that the statement returns, or, of a plain INSERT, one for each row it wrote."""
        return self._statements[statement](given)

    def copy(self) -> tuple[dict[UUID, Row], dict[tuple[UUID, int], Row]]:
        """What `restore` takes."""
        return dict(self.jobs), dict(self.attempts)

    def restore(self, copy: tuple[dict[UUID, Row], dict[tuple[UUID, int], Row]]) -> None:
        """Roll back."""
        self.jobs, self.attempts = copy

    # Writing

    def _set_job(self, job: Row, /, **changes: Any) -> Row:
        new = {**job, **changes}
        waits = new["status"] == "queued" and new["dispatched_at"] is None
        too_early = new["stage"] == "ready" and new["run_at"] > self._now()
        if (new["stage"] is not None) != waits or too_early:
            new["stage"] = self._stage(new["run_at"]) if waits else None
        ends_cancelled = new["status"] == "cancelled" and job["status"] != "cancelled"
        if ends_cancelled and new["cancel_requested_at"] is None:
            new["cancel_requested_at"] = self._now()
        self.jobs[new["id"]] = new
        self.changes += 1
        return new

    def _set_attempt(self, attempt: Row, /, **changes: Any) -> Row:
        new = {**attempt, **changes}
        self.attempts[new["job_id"], new["attempt"]] = new
        self.changes += 1
        return new

    def _stage(self, run_at: datetime) -> str:
        return "scheduled" if run_at > self._now() else "ready"

    def _open(self, given: Mapping[str, Any]) -> tuple[Row, Row] | None:
        """The job and its attempt, which must be open."""
        attempt = self.attempts.get((given["job_id"], given["attempt"]))
        if attempt is None or attempt["ended_at"] is not None:
            return None
        return self.jobs[given["job_id"]], attempt

    # store/attempts.py

    def _read(self, given: Parameters) -> Rows:
        job = self.jobs.get(given[0])
        if job is None:
            return []
        last = self.attempts.get((job["id"], job["attempt"]), _NO_ATTEMPT)
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
        found = self._open(given)
        if found is None:
            return []
        job, attempt = found
        attempt = self._set_attempt(
            attempt,
            hybridjob_uid=attempt["hybridjob_uid"] or given["uid"],
            dispatched_at=attempt["dispatched_at"] or self._now(),
        )
        if attempt["hybridjob_uid"] == given["uid"] and job["resource_uid"] is None:
            self._point(job, given)
        return [{"hybridjob_uid": attempt["hybridjob_uid"]}]

    def _point(self, job: Row, given: Mapping[str, Any]) -> None:
        self._set_job(
            job,
            namespace=given["namespace"],
            resource_name=given["name"],
            resource_uid=given["uid"],
        )

    def _bind_job(self, given: Parameters) -> Rows:
        found = self._open(given)
        if found is None:
            return []
        attempt = self._set_attempt(found[1], job_uid=found[1]["job_uid"] or given["uid"])
        return [{"job_uid": attempt["job_uid"]}]

    def _start(self, given: Parameters) -> Rows:
        found = self._open(given)
        if found is None or found[1]["pod_uid"] not in (None, given["pod_uid"]):
            return []
        attempt = self._set_attempt(
            found[1],
            started_at=found[1]["started_at"] or given["started_at"],
            pod_name=given["pod_name"],
            pod_uid=given["pod_uid"],
        )
        self._set_job(found[0], status="processing", started_at=attempt["started_at"])
        return [{"id": given["job_id"]}]

    def _report(self, given: Parameters) -> Rows:
        found = self._open(given)
        if found is None:
            return []
        self._set_attempt(found[1], reported=codec.loads(given["reported"]))
        return [{"job_id": given["job_id"]}]

    def _open_dispatched(self, given: Parameters) -> Rows:
        return [
            {
                **{name: each[name] for name in ("job_id", "attempt", "hybridjob_uid", "job_uid")},
                "resource_name": self.jobs[each["job_id"]]["resource_name"],
                "cancel_requested": self.jobs[each["job_id"]]["cancel_requested_at"] is not None,
                "settled": each["dispatched_at"] < self._now() - given["settled"],
            }
            for each in sorted(self.attempts.values(), key=_place)
            if each["ended_at"] is None
            and each["dispatched_at"] is not None
            and _place(each) > (given["job_id"], given["attempt"])
        ][: given["limit"]]

    def _ended(self, given: Parameters) -> Rows:
        places = list(zip(given["job_ids"], given["attempts"], strict=True))
        found = [self.attempts[place] for place in places if place in self.attempts]
        return [
            {
                **dict(zip(("job_id", "attempt"), _place(each), strict=True)),
                "ended": each["ended_at"] is not None,
            }
            for each in found
        ]

    def _statuses(self, given: Parameters) -> Rows:
        return [
            {"id": job_id, "status": self.jobs[job_id]["status"]}
            for job_id in given[0]
            if job_id in self.jobs
        ]

    # store/outcome.py

    def _lock(self, given: Parameters) -> Rows:
        found = [self.jobs[job_id] for job_id in sorted(given[0]) if job_id in self.jobs]
        return [
            {
                **{name: job[name] for name in ("id", "retry_count", "max_retries", "priority")},
                "cancel_requested": job["cancel_requested_at"] is not None,
                "retry": self._types[job["type"]].raw_spec.get("retry"),
                "now": self._now(),
            }
            for job in found
        ]

    def _free_retries(self, given: Parameters) -> Rows:
        counts: dict[tuple[UUID, str], int] = {}
        for each in self.attempts.values():
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
            job = self.jobs.get(given["job_id"])
            if job is None:
                continue
            found = self._open(given)
            answers.append(
                {
                    **{name: job[name] for name in ("id", "status", "type", "traceparent")},
                    "changed": found is not None,
                }
            )
            if found is not None:
                self._end_open(*found, given, again=again)
                attempt = self.attempts[_place(given)]
                names = ("claimed_at", "started_at", "ended_at")
                answers[-1] |= {name: attempt[name] for name in names}
        return answers

    def _end_open(self, job: Row, attempt: Row, given: Row, *, again: bool) -> None:
        result = given["result"]
        if result is not None and "\\u0000" in result:
            raise psycopg.errors.UntranslatableCharacter
        times = (
            given["ended_at"] or self._now(),
            *(attempt["claimed_at"], attempt["started_at"], given["started_at"]),
        )
        attempt = self._set_attempt(
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
                "stage": self._stage(given["run_at"]),
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
        self._set_job(job, **changes)

    def _evidence(self, given: Parameters) -> Rows:
        attempt = self.attempts.get((given["job_id"], given["attempt"]))
        if attempt is not None and attempt["ended_at"] is not None:
            names = ("log_tail", "exit_code", "pod_name")
            known = {name: attempt[name] for name in names if attempt[name] is not None}
            self._set_attempt(attempt, **{**{name: given[name] for name in names}, **known})
        return []

    def _cancel(self, given: Parameters) -> Rows:
        job_id, reason = given
        job = self.jobs.get(job_id)
        if job is None or job["status"] in _TERMINAL:
            return [{"status": None}]
        asked_at = job["cancel_requested_at"] or self._now()
        if job["stage"] is None:
            job = self._set_job(job, cancel_requested_at=asked_at)
        else:
            job = self._set_job(
                job,
                status="cancelled",
                outcome_reason=reason,
                stage=None,
                cancel_requested_at=asked_at,
            )
        return [{"status": job["status"]}]

    # store/resources.py

    def _dispatched(self, given: Parameters) -> Rows:
        found = self._open(given)
        if found is not None:
            job, attempt = found
            bound = attempt["hybridjob_uid"] or given["uid"]
            dispatched_at = attempt["dispatched_at"] or self._now()
            self._set_attempt(attempt, dispatched_at=dispatched_at, hybridjob_uid=bound)
            if bound == given["uid"] or job["resource_uid"] != bound:
                self._point(job, given)
        return []

    def _adopted(self, given: Parameters) -> Rows:
        job = self.jobs.get(given["job_id"])
        if job is not None and job["resource_uid"] is None:
            self._point(job, given)
        return []

    def _forget(self, given: Parameters) -> Rows:
        job = self.jobs.get(given["job_id"])
        if job is not None and job["resource_uid"] == given["uid"]:
            self._set_job(job, resource_uid=None)
        return []

    def _hand_out_again(self, given: Parameters) -> Rows:
        found = self._open(given)
        if found is not None and found[1]["hybridjob_uid"] == given["uid"]:
            job, attempt = found
            self._set_attempt(attempt, hybridjob_uid=None, dispatched_at=None)
            uid = job["resource_uid"]
            self._set_job(job, resource_uid=None if uid == given["uid"] else uid)
        return []

    def _forget_spent(self, given: Parameters) -> Rows:
        for job in [self.jobs[job_id] for job_id in given["ids"] if job_id in self.jobs]:
            if job["status"] in _TERMINAL and job["resource_uid"] in given["uids"]:
                self._set_job(job, resource_uid=None)
        return []

    def _held_by(self, given: Parameters) -> Rows:
        found = [self.jobs[job_id] for job_id in given["ids"] if job_id in self.jobs]
        return [
            {"resource_uid": job["resource_uid"]}
            for job in found
            if job["resource_uid"] in given["uids"]
        ]

    def _waited(self, given: Parameters) -> Rows:
        found = self._open(given)
        return [] if found is None else [{"waited": self._now() - found[1]["claimed_at"]}]

    # store/enqueue.py

    def _insert(self, columns: Parameters) -> Rows:
        inserted = []
        for place, job_id in enumerate(columns["id"]):
            given = {name: values and values[place] for name, values in columns.items()}
            if job_id in self.jobs or self._by_key(given):
                continue
            now = self._now()
            order_key = now - timedelta(minutes=given["priority"])
            inserted.append(
                self._set_job(
                    {**_NEW_JOB, **given, "created_at": now, "run_at": now, "order_key": order_key}
                )
            )
        return inserted

    def _find(self, columns: Parameters) -> Rows:
        rows = []
        for place, job_id in enumerate(columns["id"]):
            given = {name: values and values[place] for name, values in columns.items()}
            job = self.jobs.get(job_id) or self._by_key(given)
            if job is not None:
                rows.append({"place": place + 1, "id": job["id"], "status": job["status"]})
        return rows

    def _by_key(self, given: Row) -> Row | None:
        names = ("source", "key", "type")
        return next(
            (
                job
                for job in self.jobs.values()
                if given["key"] is not None and all(job[name] == given[name] for name in names)
            ),
            None,
        )

    # store/claim.py, for types without limits

    def _promote(self, _given: Parameters) -> Rows:
        for job in list(self.jobs.values()):
            if job["stage"] == "scheduled" and job["run_at"] <= self._now():
                self._set_job(job, stage="ready")
        return []

    def _live(self, _given: Parameters) -> Rows:
        counts: dict[str, int] = {}
        for each in self.attempts.values():
            if each["ended_at"] is None:
                type_ = self.jobs[each["job_id"]]["type"]
                counts[type_] = counts.get(type_, 0) + 1
        return [
            {"type": type_, "concurrency_key": None, "live": number, "pods": number}
            for type_, number in counts.items()
        ]

    def _type_limits(self, _given: Parameters) -> Rows:
        names = ("concurrency", "by_key", "throttle", "period", "throttle_key")
        return [{"type": type_, **dict.fromkeys(names)} for type_ in self._types]

    def _candidates(self, given: Parameters) -> Rows:
        rows: Rows = []
        for type_, places in zip(given["types"], given["places"], strict=True):
            line = [
                job
                for job in self.jobs.values()
                if (job["stage"], job["type"]) == ("ready", type_) and job["run_at"] <= self._now()
            ]
            line.sort(key=lambda job: (job["order_key"], job["id"]))
            rows += [
                {
                    **{name: job[name] for name in ("id", "type", "order_key")},
                    "concurrency_key": None,
                    "parked": False,
                }
                for job in line[:places]
            ]
        return rows

    def _claim(self, given: Parameters) -> Rows:
        claimed = []
        for job_id in sorted(given["ids"]):
            job = self.jobs[job_id]
            if job["stage"] != "ready":
                continue
            now = self._now()
            job = self._set_job(job, attempt=job["attempt"] + 1, dispatched_at=now, stage=None)
            spec = self._types[job["type"]].raw_spec
            self._set_attempt(
                _NEW_ATTEMPT,
                job_id=job_id,
                attempt=job["attempt"],
                runner="pod",
                deadline_seconds=job["deadline_seconds"] or spec.get("deadlineSeconds", 900),
                claimed_at=now,
            )
            claimed.append({"job_id": job_id})
        return claimed

    def _claims(self, given: Parameters) -> Rows:
        before = self._now() - given["redrive_after"]
        rows = []
        for each in self.attempts.values():
            unconfirmed = each["ended_at"] is None and each["dispatched_at"] is None
            if unconfirmed and (each["job_id"] in given["ids"] or each["claimed_at"] < before):
                job = self.jobs[each["job_id"]]
                digest = hashlib.sha256(job["payload"].encode()).hexdigest()
                names = ("type", "priority", "namespace", "resource_name", "resource_uid")
                rows.append(
                    {
                        "job_id": each["job_id"],
                        "attempt": each["attempt"],
                        "deadline_seconds": each["deadline_seconds"],
                        "payload_digest": f"sha256:{digest}",
                        "traceparent": job["traceparent"],
                        "waited_seconds": (
                            each["claimed_at"] - max(job["run_at"], job["created_at"])
                        ).total_seconds(),
                        **{name: job[name] for name in names},
                    }
                )
        rows.sort(key=lambda row: (self.attempts[_place(row)]["claimed_at"], row["job_id"]))
        return rows[: given["limit"]]

    # People

    def _retry(self, given: Parameters) -> Rows:
        job = self.jobs.get(given[0])
        if job is None or job["status"] not in ("failed", "cancelled"):
            return [{"retried": False}]
        now, retries = self._now(), job["retry_count"] + 1
        if any(
            each["ended_at"] is None and each["job_id"] == job["id"]
            for each in self.attempts.values()
        ):
            return [{"retried": False}]
        again = {name: _NEW_JOB[name] for name in _FORGOTTEN}
        self._set_job(
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
        job, status = self.jobs.get(given["id"]), given["status"]
        if job is None:
            return []
        changes: Row = {"status": status}
        if status in _TERMINAL and job["status"] != status:
            undated = (
                status == "completed" and not (job["completed_at"] and job["started_at"])
            ) or (status == "failed" and not job["failed_at"])
            if job["dispatched_at"] is not None or undated:
                changes |= self._ended_by_hand(job, status)
        elif job["status"] != "queued" and status == "queued":
            names = ("cancel_requested_at", "started_at", "completed_at", "failed_at")
            if any(job[name] is not None for name in (*names, "dispatched_at")):
                attempt = self.attempts.get((job["id"], job["attempt"]))
                if attempt is not None and attempt["ended_at"] is None:
                    self._close_by_hand(attempt, "queued", outcome="cancelled")
                changes |= dict.fromkeys((*names, "dispatched_at"))
                changes["stage"] = self._stage(job["run_at"])
        self._set_job(job, **changes)
        return []

    def _ended_by_hand(self, job: Row, status: str) -> Row:
        now = self._now()
        changes: Row = {"dispatched_at": None}
        attempt = self.attempts.get((job["id"], job["attempt"]))
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
        times = (self._now(), attempt["claimed_at"], attempt["started_at"])
        said = {"message": f"set to {status} by postgres", **changes}
        self._set_attempt(
            attempt,
            ended_at=max(each for each in times if each is not None),
            reason="SetByHand",
            spent_retry=False,
            **said,
        )


_NO_ATTEMPT: Row = {**_NEW_ATTEMPT, "claimed_at": None, "deadline_seconds": None}
_FORGOTTEN = (
    *("status", "stage", "dispatched_at", "cancel_requested_at", "outcome_reason", "error"),
    *("error_category", "result", "started_at", "completed_at", "failed_at"),
)


def _place(row: Row) -> tuple[UUID, int]:
    return row["job_id"], row["attempt"]


class Cursor:
    """What the store reads of a cursor."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.rowcount = len(rows)

    async def fetchone(self) -> Row | None:
        return self._rows[0] if self._rows else None

    async def fetchall(self) -> Rows:
        return self._rows
