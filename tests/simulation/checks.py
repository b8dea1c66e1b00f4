"""What must hold, after every step and at the end."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from hybridjobs.controller.observe import is_finished
from hybridjobs.kube import names
from hybridjobs.kube.client import HYBRIDJOBS, JOBS, PODS
from hybridjobs.kube.identity import is_dispatched, is_over, job_id
from hybridjobs.model import Outcome
from hybridjobs.policy import MAX_DISRUPTIONS, MAX_RETRY_LATER
from tests.simulation.cluster import ApiServer, Object, owner_uid
from tests.simulation.nodes import Container, Nodes
from tests.simulation.refusals import Refusals
from tests.simulation.rows import Row
from tests.simulation.stores import Store
from tests.simulation.verdicts import Verdicts

TERMINAL = ("completed", "failed", "cancelled")
# Verdicts on a pod that has ended. Whatever else closes an attempt fences it: its pod may run on.
_OF_ENDED_PODS = {"failed", "retry_later", "deadline", "oom", "disrupted"}
_FREE = {
    Outcome.DISRUPTED: MAX_DISRUPTIONS,
    Outcome.LOST: MAX_DISRUPTIONS,
    Outcome.NODE_LOST: MAX_DISRUPTIONS,
    Outcome.RETRY_LATER: MAX_RETRY_LATER,
}
# What may be added to an attempt that has ended.
_EVIDENCE = ("log_tail", "exit_code", "pod_name")
# A sweep, which sees what nobody else does; what belongs to no HybridJob goes at the second one.
_SWEPT = timedelta(seconds=90)


class Violation(AssertionError):  # noqa: N818 - named for what it is
    """Something is that must not be."""


class Checks:
    """Told of all that others do, since what is right depends on it."""

    def __init__(
        self,
        server: ApiServer,
        nodes: Nodes,
        store: Store,
        refusals: Refusals,
        now: Callable[[], datetime],
    ) -> None:
        self._server = server
        self._now = now
        self._verdicts = Verdicts(server, nodes, refusals, now)
        self._peace_since: datetime | None = None
        self._store = store
        self._nodes = nodes
        self._refusals = refusals
        self._seen = -1
        self._found: list[str] = []  # in the middle of somebody's step
        self._ended: dict[tuple[UUID, int], Row] = {}
        self._over: dict[UUID, Row] = {}
        self._jobs_made: Counter[str] = Counter()
        self._told_by_hand: set[UUID] = set()  # jobs, since they were looked at
        self._by_hand: Counter[UUID] = Counter()  # how often
        self.reported: set[tuple[UUID, int]] = set()  # ends that a worker told by the API
        self._cancelled: set[UUID] = set()  # jobs that somebody wants cancelled
        self._deleted_by_others: set[str] = set()  # Jobs, by name
        self._made_by_people: set[str] = set()  # HybridJobs, by uid
        self._copies: set[str] = set()  # those of them that name another one's job
        self._known: set[UUID] = set()  # jobs
        self._restored = False
        server.watchers.append(self._on_event)
        nodes.begun = self._on_begun

    def look(self) -> None:
        """After a step."""
        if self._found:
            raise Violation(self._found[0])
        if self._store.changes == self._seen:
            return
        jobs, attempts = self._store.rows()
        self._seen = self._store.changes
        numbers: dict[UUID, list[Row]] = {job_id: [] for job_id in jobs}
        for attempt in attempts.values():
            numbers[attempt["job_id"]].append(attempt)
        for each in jobs.keys() - self._known:
            self._look_at_new(jobs[each])
        self._known = set(jobs)
        for job in jobs.values():
            self._look_at_job(job, sorted(numbers[job["id"]], key=lambda each: each["attempt"]))
        for key, attempt in attempts.items():
            if attempt["ended_at"] is not None:
                self._look_at_ended(key, attempt)

    def _look_at_new(self, job: Row) -> None:
        """One of a HybridJob made by hand is of its own job, and of none that has run."""
        for body in self._server.list(HYBRIDJOBS.plural):
            if job["source"] == "kubernetes" and body["metadata"]["uid"] == job["key"]:
                state = (body.get("status") or {}).get("state")
                if is_dispatched(body) or state in TERMINAL:
                    raise Violation(f"{body['metadata']['name']} is adopted, which is {state}")

    def _look_at_job(self, job: Row, attempts: list[Row]) -> None:
        job_id, status = job["id"], job["status"]
        if [each["attempt"] for each in attempts] != list(range(1, job["attempt"] + 1)):
            raise Violation(f"the attempts of {job_id} do not count up to {job['attempt']}")
        unended = [each["attempt"] for each in attempts if each["ended_at"] is None]
        if unended not in ([], [job["attempt"]]):
            raise Violation(f"open attempts of {job_id}: {unended}, its last is {job['attempt']}")
        if (status == "processing" or job["dispatched_at"] is not None) and not unended:
            raise Violation(f"{job_id} is {status} without an open attempt")
        if status in TERMINAL and unended:
            raise Violation(f"{job_id} is {status} with an open attempt")
        over = self._over.get(job_id)
        before = None if over is None else over["status"]
        # A run that a database from a backup did not know of.
        later = self._restored and over is not None and job["attempt"] > over["attempt"]
        moved = later or job_id in self._told_by_hand
        if before is not None and status != before and not moved:
            raise Violation(f"{job_id} was {before} and is {status}")
        unasked = status == "cancelled" != before and job_id not in self._cancelled
        if unasked and job_id not in self._told_by_hand:
            raise Violation(f"{job_id} is cancelled by nobody")
        self._told_by_hand.discard(job_id)
        self._over.pop(job_id, None)
        if status in TERMINAL:
            self._over[job_id] = job
        self._look_at_retries(job, attempts)

    def _look_at_retries(self, job: Row, attempts: list[Row]) -> None:
        if job["retry_count"] > job["max_retries"]:
            raise Violation(f"{job['id']} has {job['retry_count']} retries")
        free = Counter(each["outcome"] for each in attempts if each["spent_retry"] is False)
        spent = sum(each["spent_retry"] is True for each in attempts)
        # Each retry by hand counts too.
        if not spent <= job["retry_count"] <= spent + self._by_hand[job["id"]]:
            raise Violation(f"{job['id']} has {job['retry_count']} retries, and spent {spent}")
        for each in attempts[:-1]:
            unspent = each["outcome"] not in _FREE and each["spent_retry"] is False
            if unspent and not self._by_hand[job["id"]] and not self._restored:
                raise Violation(f"{job['id']} goes on after {each['outcome']} without a retry")
        for each in attempts[-1:]:
            asked_at = job["cancel_requested_at"]
            # One that a restored database did not know is counted up, and cancelled.
            late = asked_at is not None and each["claimed_at"] > asked_at
            if late and not self._restored:
                raise Violation(f"{job['id']} is claimed, though it is to be cancelled")
        for outcome, limit in _FREE.items():
            # One more ends the job; each retry by hand may do so again.
            ended_so = [each["spent_retry"] for each in attempts if each["outcome"] == outcome]
            if True in ended_so[:limit]:
                raise Violation(f"{job['id']} ended as {outcome}, which spent a retry")
            if free[outcome] > limit + 1 + self._by_hand[job["id"]]:
                raise Violation(f"{job['id']} ended as {outcome} {free[outcome]} times for free")

    def _look_at_ended(self, key: tuple[UUID, int], attempt: Row) -> None:
        before = self._ended.get(key)
        if before is attempt:
            return
        self._ended[key] = attempt
        if before is None:
            self._look_at_end(key, attempt)
            return
        changed = [
            name
            for name, value in attempt.items()
            if value != before[name] and not (name in _EVIDENCE and before[name] is None)
        ]
        if changed:
            raise Violation(f"attempt {key} has ended, and its {changed} changed")

    def _look_at_end(self, key: tuple[UUID, int], attempt: Row) -> None:
        if attempt["reason"] == "SetByHand":
            return
        type_ = self._store.rows()[0][key[0]]["type"]
        containers = self._containers(*key)
        if attempt["outcome"] in _OF_ENDED_PODS:
            running = [
                each.pod
                for each in containers
                if each.runs and not each.is_lost and not self._is_second(each)
            ]
            if running:
                raise Violation(f"attempt {key} ended as {attempt['outcome']}; {running} runs")
        wrong = None if key in self.reported else self._verdicts.wrong(key, attempt, type_)
        if wrong is not None:
            said = f"{attempt['outcome']} ({attempt['reason']})"
            raise Violation(f"attempt {key} ended as {said}, though {wrong}")
        if attempt["reason"] in ("Invalid", "InvalidJob") and key[0] != self._refusals.invalid:
            raise Violation(f"attempt {key} ended as invalid, which it was not")
        done = any(each.ended_with == 0 for each in containers)
        if attempt["outcome"] == "succeeded" and not (done or key in self.reported):
            raise Violation(f"attempt {key} succeeded, though nothing did")

    def _containers(self, job_id: UUID, attempt: int) -> list[Container]:
        return [
            each
            for each in self._nodes.containers.values()
            if (each.job_id, each.attempt) == (job_id, attempt)
        ]

    def _is_second(self, container: Container) -> bool:
        """Whether its Job was resumed while the end of the first was recorded: it is deleted."""
        taken = {self._nodes.containers[uid].pod for uid in self._nodes.taken}
        of_attempt = self._containers(container.job_id, container.attempt)
        earlier = of_attempt[: of_attempt.index(container)]
        # Or of a Job that was made once more, by a database that does not know of the first.
        return any(each.pod in taken for each in earlier) or (self._restored and bool(earlier))

    def _on_event(self, kind: str, event: str, body: Object) -> None:
        if kind == JOBS.plural and event == "ADDED":
            name = body["metadata"]["name"]
            self._jobs_made[name] += 1
            again = self._jobs_made[name] > 1 and name not in self._deleted_by_others
            # One whose attempt has ended is by a program that was stopped before its create.
            if again and self._is_open(body):
                self._found.append(f"{name} was made {self._jobs_made[name]} times")
        elif kind == JOBS.plural and event == "DELETED":
            self._deleted_by_others.add(body["metadata"]["name"])

    def _on_begun(self, container: Container) -> None:
        """A container starts: none of another attempt may run, unless that is fenced.

        One attempt has two only where its Job was made twice, which is looked at there, or was
        suspended and resumed.
        """
        attempts = self._store.rows()[1]
        key = container.job_id, container.attempt
        own = attempts.get(key)
        over_at = None if own is None else own["ended_at"]
        if over_at and self._peace_since:
            job = self._server.objects[JOBS.plural].get(names.job_name(*key))
            limit = (
                _SWEPT if job is not None and owner_uid(job) in self._server.uids else 2 * _SWEPT
            )
            if self._now() - max(over_at, self._peace_since) > limit:
                self._found.append(f"{container.pod} starts, long after its attempt ended")
        for other in self._nodes.containers.values():
            same = other.attempt == container.attempt
            if same or not other.runs or other.job_id != container.job_id:
                continue
            if any((each.job_id, each.attempt) not in attempts for each in (container, other)):
                continue  # begun in a time that the database knows nothing of
            attempt = attempts[other.job_id, min(other.attempt, container.attempt)]
            if attempt["ended_at"] is None:
                self._found.append(f"{container.pod} starts while {other.pod} runs, which is open")
            if other.attempt > container.attempt:
                continue  # made late: fenced
            judged = attempt["outcome"] in _OF_ENDED_PODS and attempt["reason"] != "SetByHand"
            if judged and not other.is_lost and not self._is_second(other):
                self._found.append(f"{container.pod} starts while {other.pod} runs")

    def _is_open(self, job: Object) -> bool:
        labels: dict[str, Any] = job["metadata"]["labels"]
        return self._has_open(UUID(labels[names.JOB_ID]), int(labels[names.ATTEMPT]))

    def _has_open(self, job: UUID, number: int) -> bool:
        attempt = self._store.rows()[1].get((job, number))
        return attempt is not None and attempt["ended_at"] is None

    def on_delete(self, kind: str, body: Object) -> None:
        """The operator or the dispatcher deletes something."""
        if kind == JOBS.plural:
            self._deleted_by_others.discard(body["metadata"]["name"])
            labels = body["metadata"]["labels"]
            if self._is_unknown(UUID(labels[names.JOB_ID]), int(labels[names.ATTEMPT])):
                self._found.append(f"{body['metadata']['name']} is deleted, and not known")
            if self._is_open(body):
                self._found.append(f"{body['metadata']['name']} is deleted, its attempt open")
        elif kind == HYBRIDJOBS.plural:
            self._on_delete_hybridjob(body)

    def _on_delete_hybridjob(self, body: Object) -> None:
        name, job = body["metadata"]["name"], self._store.rows()[0].get(job_id(body))
        if job is None:
            self._found.append(f"{name} is deleted, of a job not known")
        elif job["status"] == "processing":
            self._found.append(f"{name} is deleted while its job runs")
        over = (body.get("status") or {}).get("state") in TERMINAL
        later = self._is_unknown(job_id(body), body["spec"].get("attempt", 0))
        if later and not over:
            self._found.append(f"{name} is deleted, of an attempt not known")
        attempt = 0 if job is None else job["attempt"]
        stands = body["spec"].get("cancel") and body["spec"].get("attempt", 0) >= attempt
        if stands and self._has_open(job_id(body), attempt):
            self._found.append(f"{name} is deleted, and with it a cancel that stands")
        # A cancel cannot be taken back: to run its job once more it is made anew.
        moved = self._restored or (job is not None and self._by_hand[job["id"]])
        again = body["spec"].get("cancel") and job is not None and moved
        if self._is_theirs(body) and not again:
            self._found.append(f"{name} is deleted, which is its maker's to do")

    def on_made(self, hybridjob: Object) -> None:
        """Somebody has made it by hand."""
        uid = hybridjob["metadata"]["uid"]
        self._made_by_people.add(uid)
        if "jobId" in hybridjob["spec"]:
            self._copies.add(uid)
        if hybridjob["spec"].get("cancel"):
            self.on_cancel(job_id(hybridjob))

    def on_moved(self, job: UUID) -> None:
        """Somebody moves that job on by hand."""
        self._told_by_hand.add(job)
        self._by_hand[job] += 1

    def on_cancel(self, cancelled: UUID) -> None:
        """Somebody wants that job cancelled."""
        self._cancelled.add(cancelled)

    def on_unwanted(self, hybridjob: Object) -> None:
        """Somebody cancels or deletes it, which is its job's end unless another stands for it."""
        uid, job = hybridjob["metadata"]["uid"], self._store.rows()[0].get(job_id(hybridjob))
        if uid not in self._copies or (job is not None and job["resource_uid"] in (None, uid)):
            self.on_cancel(job_id(hybridjob))

    def on_peace(self) -> None:
        """Nothing goes wrong any more."""
        self._peace_since = self._now()

    def on_restore(self) -> None:
        """The rows are those of a while ago; the cluster is what it is."""
        self._restored = True
        self._verdicts.on_restore()
        self._known = set(self._store.rows()[0])
        self._ended.clear()
        self._over.clear()
        self._deleted_by_others |= self._jobs_made.keys()

    def _is_theirs(self, hybridjob: Object) -> bool:
        """Whether nobody but people deletes it. Of a copy that is open: it may have to stand in."""
        uid = hybridjob["metadata"]["uid"]
        limited = "ttlSecondsAfterFinished" in hybridjob["spec"]
        return uid in self._made_by_people - self._copies and not limited

    def _is_unknown(self, job: UUID, attempt: int = 0) -> bool:
        """Whether it is of a time that the database has been taken back from."""
        row = self._store.rows()[0].get(job)
        return self._restored and (row is None or attempt > row["attempt"])

    @property
    def may_leave_late(self) -> bool:
        """Whether something may go that need not, and is not waited for in `left`."""
        return self._restored or bool(self._copies)

    def unfinished(self) -> list[str]:
        """Jobs that are not over, but for those that must not overlap and whose node is lost.

        And what people made that is no job, nor was one.
        """
        waiting = {each.job_id for each in self._nodes.containers.values() if each.is_lost}
        jobs = self._store.rows()[0]
        return [
            f"{job['id']} {job['status']}"
            for job in jobs.values()
            if job["status"] not in TERMINAL
            and not (job["type"] == "sim/alone" and job["id"] in waiting)
        ] + [
            f"{body['metadata']['name']} without a row"
            for body in self._server.list(HYBRIDJOBS.plural)
            if job_id(body) not in jobs and not is_dispatched(body) and not is_over(body)
        ]

    def uncancelled(self) -> list[str]:
        """Jobs that are to be cancelled, and could have been: no silent node has them."""
        kept = {each.job_id for each in self._nodes.containers.values() if each.is_lost}
        return [
            f"{job['id']} {job['status']}"
            for job in self._store.rows()[0].values()
            if job["cancel_requested_at"] is not None
            and job["status"] not in TERMINAL
            and job["id"] not in kept | self._refusals.for_good
        ]

    def unended(self) -> list[str]:
        """Open attempts whose pod is known to have begun, and was taken away."""
        return [
            f"{attempt['job_id']} {attempt['attempt']}"
            for attempt in self._store.rows()[1].values()
            if attempt["ended_at"] is None
            and attempt["pod_uid"] in self._nodes.taken - self._server.uids
        ]

    def jobless(self) -> list[str]:
        """Open attempts that have a HybridJob, and no Job, and nobody refuses them for good."""
        return [
            names.job_name(*key)
            for key, attempt in self._store.rows()[1].items()
            if attempt["ended_at"] is None
            and attempt["hybridjob_uid"] in self._server.uids
            and names.job_name(*key) not in self._server.objects[JOBS.plural]
            and key[0] not in self._refusals.for_good
        ]

    def left(self) -> list[str]:
        """What should be gone: all but what people made, and what belongs to that.

        And what a database that was restored does not know, which is theirs to judge.
        """
        kept: set[str | None] = set()
        gone_by: list[str] = []
        for body in self._server.list(HYBRIDJOBS.plural):
            metadata = body["metadata"]
            theirs = self._is_theirs(body) or metadata["uid"] in self._copies
            if theirs or self._is_unknown(job_id(body)):
                kept |= {metadata["uid"], metadata["name"]}
            else:
                gone_by.append(metadata["name"])
        for job in self._server.list(JOBS.plural):
            # One that was let go of stays with whatever has its HybridJob's name.
            labels = job["metadata"]["labels"]
            owner = owner_uid(job) or labels[names.HYBRIDJOB]
            unknown = self._is_unknown(UUID(labels[names.JOB_ID]), int(labels[names.ATTEMPT]))
            if is_finished(job) and (unknown or owner in kept):
                kept.add(job["metadata"]["uid"])
            else:
                gone_by.append(job["metadata"]["name"])
        gone_by += [
            pod["metadata"]["name"]
            for pod in self._server.list(PODS.plural)
            if owner_uid(pod) not in kept
        ]
        return gone_by + [each.pod for each in self._nodes.containers.values() if each.runs]
