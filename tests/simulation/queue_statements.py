"""What the statements of store/resources.py, restored.py, enqueue.py and claim.py do in memory."""

import hashlib
from datetime import timedelta

from hybridjobs.store import claim, enqueue, resources, restored
from tests.simulation.rows import (
    NEW_ATTEMPT,
    NEW_JOB,
    TERMINAL,
    Kept,
    Parameters,
    Row,
    Rows,
    Statements,
    place_of,
)


class QueueStatements:
    """How jobs come to be, are claimed, and which HybridJobs stand for them."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self.all: Statements = {
            resources._DISPATCHED: self._dispatched,
            resources._ADOPTED: self._adopted,
            resources._FORGET: self._forget,
            resources._HAND_OUT_AGAIN: self._hand_out_again,
            resources._FORGET_SPENT: self._forget_spent,
            resources._STILL_NEEDED: self._still_needed,
            resources._OPEN: self._find_open,
            restored._BEHIND: self._behind,
            restored._REOPEN: self._reopen,
            restored._COUNT_UP: self._count_up,
            restored._LOSE: self._lose,
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
        }

    # store/resources.py

    def _dispatched(self, given: Parameters) -> Rows:
        found = self._kept.open(given)
        if found is not None:
            job, attempt = found
            bound = attempt["hybridjob_uid"] or given["uid"]
            dispatched_at = attempt["dispatched_at"] or self._kept.now()
            self._kept.set_attempt(attempt, dispatched_at=dispatched_at, hybridjob_uid=bound)
            if bound == given["uid"] or job["resource_uid"] != bound:
                self._kept.point(job, given)
        return []

    def _adopted(self, given: Parameters) -> Rows:
        job = self._kept.jobs.get(given["job_id"])
        if job is not None and job["resource_uid"] is None:
            self._kept.point(job, given)
        return []

    def _forget(self, given: Parameters) -> Rows:
        job = self._kept.jobs.get(given["job_id"])
        if job is not None and job["resource_uid"] == given["uid"]:
            self._kept.set_job(job, resource_uid=None)
        return []

    def _hand_out_again(self, given: Parameters) -> Rows:
        found = self._kept.open(given)
        if found is not None and found[1]["hybridjob_uid"] == given["uid"]:
            job, attempt = found
            self._kept.set_attempt(attempt, hybridjob_uid=None, dispatched_at=None)
            uid = job["resource_uid"]
            self._kept.set_job(job, resource_uid=None if uid == given["uid"] else uid)
        return []

    def _forget_spent(self, given: Parameters) -> Rows:
        for job, uid, attempt in self._asked(given):
            known = job["resource_uid"] == uid and job["attempt"] >= attempt
            if known and job["status"] in TERMINAL:
                self._kept.set_job(job, resource_uid=None)
        return []

    def _still_needed(self, given: Parameters) -> Rows:
        return [
            {"uid": uid}
            for job, uid, attempt in self._asked(given)
            if job["resource_uid"] == uid
            or job["attempt"] < attempt
            or job["status"] not in TERMINAL
        ]

    def _asked(self, given: Parameters) -> list[tuple[Row, str, int]]:
        jobs = self._kept.jobs
        asked = zip(given["ids"], given["uids"], given["attempts"], strict=True)
        return [(jobs[id_], uid, attempt) for id_, uid, attempt in asked if id_ in jobs]

    def _find_open(self, given: Parameters) -> Rows:
        found = self._kept.open(given)
        if found is None:
            return []
        attempt = found[1]
        waited = self._kept.now() - attempt["claimed_at"]
        return [{"waited": waited, "has_started": attempt["started_at"] is not None}]

    # store/restored.py

    def _behind(self, given: Parameters) -> Rows:
        job = self._kept.jobs.get(given["job_id"])
        if job is None or job["attempt"] >= given["attempt"]:
            return []
        return [
            {
                "attempt": job["attempt"],
                "is_over": job["status"] in TERMINAL,
                "cancel_requested_at": job["cancel_requested_at"],
            }
        ]

    def _reopen(self, given: Parameters) -> Rows:
        names = ("cancel_requested_at", "outcome_reason", "error_category", "error", "result")
        forgotten = dict.fromkeys((*names, "started_at", "completed_at", "failed_at"))
        self._kept.set_job(self._kept.jobs[given["job_id"]], status="queued", **forgotten)
        return []

    def _count_up(self, given: Parameters) -> Rows:
        now = self._kept.now()
        job = self._kept.set_job(
            self._kept.jobs[given["job_id"]],
            attempt=given["attempt"],
            status="queued",
            stage=None,
            dispatched_at=now,
            started_at=None,
            cancel_requested_at=given["cancel_requested_at"],
        )
        self._kept.point(job, given)
        spec = self._kept.types.get(job["type"], {"spec": {}})["spec"]
        for number in range(given["behind"] + 1, given["attempt"] + 1):
            self._kept.set_attempt(
                NEW_ATTEMPT,
                job_id=job["id"],
                attempt=number,
                runner="pod",
                deadline_seconds=job["deadline_seconds"] or spec.get("deadlineSeconds", 900),
                claimed_at=now,
                dispatched_at=now,
                hybridjob_uid=given["uid"],
            )
        return []

    def _lose(self, given: Parameters) -> Rows:
        for each in list(self._kept.attempts.values()):
            is_earlier = each["attempt"] < given["attempt"] and each["ended_at"] is None
            if each["job_id"] == given["job_id"] and is_earlier:
                times = (self._kept.now(), each["claimed_at"], each["started_at"])
                self._kept.set_attempt(
                    each,
                    ended_at=max(time for time in times if time is not None),
                    outcome="lost",
                    reason="Restored",
                    message="the database was restored from a backup,"
                    " and the cluster has a later attempt",
                    error_category="infrastructure",
                )
        return []

    # store/enqueue.py

    def _insert(self, columns: Parameters) -> Rows:
        inserted = []
        for place, job_id in enumerate(columns["id"]):
            given = {name: values and values[place] for name, values in columns.items()}
            if job_id in self._kept.jobs or self._by_key(given):
                continue
            now = self._kept.now()
            order_key = now - timedelta(minutes=given["priority"])
            inserted.append(
                self._kept.set_job(
                    {**NEW_JOB, **given, "created_at": now, "run_at": now, "order_key": order_key}
                )
            )
        return inserted

    def _find(self, columns: Parameters) -> Rows:
        rows = []
        for place, job_id in enumerate(columns["id"]):
            given = {name: values and values[place] for name, values in columns.items()}
            job = self._kept.jobs.get(job_id) or self._by_key(given)
            if job is not None:
                rows.append({"place": place + 1, "id": job["id"], "status": job["status"]})
        return rows

    def _by_key(self, given: Row) -> Row | None:
        names = ("source", "key", "type")
        return next(
            (
                job
                for job in self._kept.jobs.values()
                if given["key"] is not None and all(job[name] == given[name] for name in names)
            ),
            None,
        )

    # store/claim.py, for types without limits

    def _promote(self, _given: Parameters) -> Rows:
        for job in list(self._kept.jobs.values()):
            if job["stage"] == "scheduled" and job["run_at"] <= self._kept.now():
                self._kept.set_job(job, stage="ready")
        return []

    def _live(self, _given: Parameters) -> Rows:
        counts: dict[str, int] = {}
        for each in self._kept.attempts.values():
            if each["ended_at"] is None:
                type_ = self._kept.jobs[each["job_id"]]["type"]
                counts[type_] = counts.get(type_, 0) + 1
        return [
            {"type": type_, "concurrency_key": None, "live": number, "pods": number}
            for type_, number in counts.items()
        ]

    def _type_limits(self, _given: Parameters) -> Rows:
        names = ("concurrency", "by_key", "throttle", "period", "throttle_key")
        return [
            {"type": type_, **dict.fromkeys(names)}
            for type_, row in self._kept.types.items()
            if not row["deleted"]
        ]

    def _candidates(self, given: Parameters) -> Rows:
        rows: Rows = []
        for type_, places in zip(given["types"], given["places"], strict=True):
            line = [
                job
                for job in self._kept.jobs.values()
                if (job["stage"], job["type"]) == ("ready", type_)
                and job["run_at"] <= self._kept.now()
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
            job = self._kept.jobs[job_id]
            if job["stage"] != "ready":
                continue
            now = self._kept.now()
            job = self._kept.set_job(job, attempt=job["attempt"] + 1, dispatched_at=now, stage=None)
            spec = self._kept.types[job["type"]]["spec"]
            self._kept.set_attempt(
                NEW_ATTEMPT,
                job_id=job_id,
                attempt=job["attempt"],
                runner="pod",
                deadline_seconds=job["deadline_seconds"] or spec.get("deadlineSeconds", 900),
                claimed_at=now,
            )
            claimed.append({"job_id": job_id})
        return claimed

    def _claims(self, given: Parameters) -> Rows:
        before = self._kept.now() - given["redrive_after"]
        rows = []
        for each in self._kept.attempts.values():
            unconfirmed = each["ended_at"] is None and each["dispatched_at"] is None
            if unconfirmed and (each["job_id"] in given["ids"] or each["claimed_at"] < before):
                job = self._kept.jobs[each["job_id"]]
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
        rows.sort(key=lambda row: (self._kept.attempts[place_of(row)]["claimed_at"], row["job_id"]))
        return rows[: given["limit"]]
