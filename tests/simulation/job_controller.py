"""Kubernetes' own part of Jobs: Job controller, garbage collector and Kueue, in small steps.

Job semantics: reference/kubernetes.md section 4 (Kubernetes 1.35).
"""

from collections.abc import Callable
from datetime import datetime

from hybridjobs.controller.observe import condition, is_finished
from hybridjobs.errors import HybridJobsError
from hybridjobs.kube.client import HYBRIDJOBS, JOBS, PODS
from hybridjobs.kube.times import time_text
from tests.simulation.cluster import ApiServer, Deed, Object, owner_uid
from tests.simulation.nodes import Nodes, has_passed, phase_of


class JobController:
    """Whatever may happen next to a HybridJob or a Job is a step; `steps` lists them."""

    def __init__(self, server: ApiServer, now: Callable[[], datetime], nodes: Nodes) -> None:
        self._server = server
        self._now = now
        self._nodes = nodes
        self._had_pod: set[str] = set()  # uids of Jobs

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
        if failing is not None and over and (pod is None or not self._nodes.container(pod).runs):
            steps.append(("job failed", lambda: self._add_condition(job, "Failed", failing)))
        elif succeeding is not None:
            done = {"completionTime": self._text()}
            steps.append(("job complete", lambda: self._add_condition(job, "Complete", {}, **done)))
        elif failing is None:
            if uid in self._had_pod:
                if over:
                    steps.append(("job judged", lambda: self._judge(job, pod)))
            elif not taken:
                steps.append(("pod created", lambda: self._create_pod(job)))
            if has_passed(status["startTime"], job["spec"]["activeDeadlineSeconds"], self._now()):
                steps.append(("job out of time", lambda: self._out_of_time(job, pod)))
        return steps

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
        # By Kueue, or whoever has suspended it.
        resumed = {**job, "spec": {**job["spec"], "suspend": False}}
        steps.append(("admitted", lambda: self._server.replace(JOBS.plural, resumed)))
        return steps

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
            return  # it tries again
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
