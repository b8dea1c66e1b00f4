"""Kubernetes' own part of Jobs: Job controller, garbage collector and Kueue, in small steps.

Job semantics: reference/kubernetes.md section 4 (Kubernetes 1.35).
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random

from hybridjobs.controller.observe import condition, is_finished
from hybridjobs.errors import HybridJobsError
from hybridjobs.kube import names
from hybridjobs.kube.client import HYBRIDJOBS, JOBS, PODS
from hybridjobs.kube.times import time_text
from tests.simulation.cluster import ApiServer, Deed, Object, owner_uid
from tests.simulation.nodes import Nodes, has_passed, phase_of

_POD_BACKOFF = timedelta(seconds=5)


class JobController:
    """Whatever may happen next to a HybridJob or a Job is a step; `steps` lists them."""

    def __init__(
        self, server: ApiServer, now: Callable[[], datetime], nodes: Nodes, random: Random
    ) -> None:
        self._server = server
        self._now = now
        self._nodes = nodes
        self._random = random
        self._held_until: dict[str, datetime] = {}  # by the uid of a suspended Job
        self._had_pod: set[str] = set()  # uids of Jobs
        self._preempted: dict[str, str | None] = {}  # by uid: in which phase of its pod
        self._again_at: dict[str, datetime] = {}  # those that were refused a pod

    def steps(self, kind: str, body: Object) -> list[Deed]:
        """What Kubernetes may do about that object now."""
        if kind == HYBRIDJOBS.plural:
            return self._garbage(body)
        if kind != JOBS.plural:
            return []
        owner = owner_uid(body)
        if owner is not None and owner not in self._server.uids:
            return [("collect", lambda: self._server.remove(kind, body["metadata"]["name"]))]
        return self._job(body)

    # The garbage collector

    def _garbage(self, hybridjob: Object) -> list[Deed]:
        """Foreground deletion: first what it owns."""
        metadata = hybridjob["metadata"]
        if "deletionTimestamp" not in metadata:
            return []
        owned = [job for job in self._server.list(JOBS.plural) if owner_uid(job) == metadata["uid"]]
        if owned:
            name = owned[0]["metadata"]["name"]
            return [("collect", lambda: self._server.remove(JOBS.plural, name))]
        return [("collected", lambda: self._server.remove(HYBRIDJOBS.plural, metadata["name"]))]

    # The Job controller

    def _job(self, job: Object) -> list[Deed]:
        status = job.get("status") or {}
        uid = job["metadata"]["uid"]
        if is_finished(job):
            return []
        pods = [pod for pod in self._server.list(PODS.plural) if owner_uid(pod) == uid]
        taken = [pod for pod in pods if pod["metadata"]["uid"] in self._nodes.taken]
        pod = next((pod for pod in pods if pod not in taken), None)
        failing = condition(job, "FailureTarget")
        succeeding = condition(job, "SuccessCriteriaMet")
        over = pod is None or phase_of(pod) in ("Succeeded", "Failed")
        settled = failing is not None or succeeding is not None or (pod is not None and over)
        if job["spec"].get("suspend") and not settled:
            return self._suspended(job, pod, taken)
        if "startTime" not in status:
            return [("job started", lambda: self._start(job))]
        steps: list[Deed] = []
        if pod is not None and phase_of(pod) == self._preempted_when(job):
            steps.append(("preempted", lambda: self._preempt(job)))
        # A pod that is being deleted counts as terminating until it has ended.
        ended = all(phase_of(each) in ("Succeeded", "Failed") for each in taken)
        runs = pod is not None and self._nodes.container(pod).runs
        if failing is not None and over and ended and not runs:
            steps.append(("job failed", lambda: self._add_condition(job, "Failed", failing)))
        elif succeeding is not None:
            done = {"completionTime": self._text()}
            steps.append(("job complete", lambda: self._add_condition(job, "Complete", {}, **done)))
        elif failing is None:
            if uid in self._had_pod:
                if over:
                    steps.append(("job judged", lambda: self._judge(job, pod)))
            elif not taken and self._now() >= self._again_at.get(uid, self._now()):
                steps.append(("pod created", lambda: self._create_pod(job)))
            # A pod that has failed comes first, one that has succeeded does not.
            failed = pod is not None and phase_of(pod) == "Failed"
            limit = job["spec"]["activeDeadlineSeconds"]
            if has_passed(status["startTime"], limit, self._now()) and not failed:
                steps.append(("job out of time", lambda: self._out_of_time(job, pod)))
        return steps

    def _preempted_when(self, job: Object) -> str | None:
        """In which phase of its pod something worth more comes to the queue, once."""
        uid = job["metadata"]["uid"]
        if names.QUEUE not in job["metadata"]["labels"]:
            return None
        if uid not in self._preempted:
            self._preempted[uid] = self._random.choice([None, "Pending", "Running", "Running"])
        return self._preempted[uid]

    def _preempt(self, job: Object) -> None:
        self._preempted[job["metadata"]["uid"]] = None
        suspend(self._server, job)

    def _start(self, job: Object) -> None:
        conditions = [
            each if each["type"] != "Suspended" else {**each, "status": "False"}
            for each in (job.get("status") or {}).get("conditions") or []
        ]
        self._set_status(job, conditions=conditions, startTime=self._text())

    def _suspended(self, job: Object, pod: Object | None, taken: list[Object]) -> list[Deed]:
        """Its pod is deleted, and counts neither as succeeded nor as failed."""
        status = job.get("status") or {}
        steps: list[Deed] = []
        if condition(job, "Suspended") is None:
            steps.append(("job suspended", lambda: self._suspend(job, pod)))
        elif status.get("terminating") and not taken:
            steps.append(("its pod is gone", lambda: self._set_status(job, terminating=0)))
        # By Kueue, or whoever has suspended it, at once or when there is room.
        uid = job["metadata"]["uid"]
        if uid not in self._held_until:
            seconds = self._random.choice([0, 0, 30, 300])
            self._held_until[uid] = self._now() + timedelta(seconds=seconds)
        if self._now() >= self._held_until[uid]:
            steps.append(("admitted", lambda: self._admit(job)))
        return steps

    def _admit(self, job: Object) -> None:
        del self._held_until[job["metadata"]["uid"]]
        resumed = {**job, "spec": {**job["spec"], "suspend": False}}
        self._server.replace(JOBS.plural, resumed)

    def _suspend(self, job: Object, pod: Object | None) -> None:
        conditions = (job.get("status") or {}).get("conditions") or []
        others = [each for each in conditions if each["type"] != "Suspended"]
        suspended = {"type": "Suspended", "status": "True", "lastTransitionTime": self._text()}
        status: Object = {"conditions": [*others, suspended]}
        if pod is not None:
            self._nodes.taken.add(pod["metadata"]["uid"])
            self._had_pod.discard(job["metadata"]["uid"])
            self._server.mark_deleted(PODS.plural, pod["metadata"]["name"])
            status["terminating"] = 1
        without = {
            name: value for name, value in (job.get("status") or {}).items() if name != "startTime"
        }
        self._server.replace(JOBS.plural, {**job, "status": {**without, **status}})

    def _judge(self, job: Object, pod: Object | None) -> None:
        if pod is not None and phase_of(pod) == "Succeeded":
            self._add_condition(job, "SuccessCriteriaMet", {})
            return
        verdict = {"reason": "BackoffLimitExceeded", "message": "has reached its backoff limit"}
        if condition(pod, "DisruptionTarget") is not None:
            message = "Pod matching FailJob rule at index 0: has condition DisruptionTarget"
            verdict = {"reason": "PodFailurePolicy", "message": message}
        self._add_condition(job, "FailureTarget", verdict)

    def _out_of_time(self, job: Object, pod: Object | None) -> None:
        verdict = {"reason": "DeadlineExceeded", "message": "was active longer than its deadline"}
        self._add_condition(job, "FailureTarget", verdict)
        if pod is not None:
            self._server.mark_deleted(PODS.plural, pod["metadata"]["name"])

    def _create_pod(self, job: Object) -> None:
        metadata = job["metadata"]
        labels = job["spec"]["template"]["metadata"]["labels"]
        body = {
            "metadata": {
                "name": f"{metadata['name']}-{self._server.version}",
                "labels": {**labels, "batch.kubernetes.io/job-name": metadata["name"]},
                "ownerReferences": [{"uid": metadata["uid"], "controller": True}],
            },
            "spec": job["spec"]["template"]["spec"],
            "status": {"phase": "Pending"},
        }
        try:
            self._server.refuse(PODS.plural, body)
        except HybridJobsError:
            self._again_at[metadata["uid"]] = self._now() + _POD_BACKOFF
            return
        self._had_pod.add(metadata["uid"])
        self._nodes.add(self._server.create(PODS.plural, body))

    def _set_status(self, job: Object, **status: object) -> None:
        self._server.replace(
            JOBS.plural, {**job, "status": {**(job.get("status") or {}), **status}}
        )

    def _add_condition(self, job: Object, type_: str, verdict: Object, **status: object) -> None:
        before = (job.get("status") or {}).get("conditions") or []
        added = {
            "type": type_,
            "status": "True",
            "reason": verdict.get("reason", ""),
            "message": verdict.get("message", ""),
            "lastTransitionTime": self._text(),
        }
        self._set_status(job, conditions=[*before, added], **status)

    def _text(self) -> str:
        return time_text(self._now())


def suspend(server: ApiServer, job: Object) -> None:
    """By Kueue, for one that is worth more, or by hand."""
    server.replace(JOBS.plural, {**job, "spec": {**job["spec"], "suspend": True}})
