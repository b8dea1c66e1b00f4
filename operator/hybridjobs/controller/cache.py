"""What the watches have told: the last state of every HybridJob, Job and pod of ours.

A plain index of our own, since kopf's takes quadratic time to fill. Keyed by the HybridJob's name,
which is a label on its Jobs and pods.
"""

from typing import Any

from hybridjobs.controller.excerpts import Objects, excerpt, excerpt_of_work
from hybridjobs.kube import names
from hybridjobs.model import JobType

Object = dict[str, Any]


class Cache:
    """Belongs to one event loop; written by the watch, read by the reconciler."""

    def __init__(self) -> None:
        self.hybridjobs = Objects()
        self.deleted: dict[str, list[Object]] = {}  # whose deletion is not yet acted on
        self.types: dict[str, JobType] = {}  # by type
        self._jobs = Objects()  # by the Job's name
        self._pods = Objects()  # by the Job's name; a Job of ours has one pod
        self._logs: dict[str, tuple[str, str]] = {}  # by the Job's name: pod uid, log tail

    def job(self, name: str) -> Object | None:
        """The Kubernetes Job of that name."""
        return self._jobs.get(name)

    def pod_of(self, job_name: str) -> Object | None:
        """The last known state of the Job's pod, also after the pod is gone."""
        return self._pods.get(job_name)

    def job_uids(self) -> dict[str, str]:
        """The uid of every Kubernetes Job known now, by name."""
        return self._jobs.uids()

    def put_hybridjob(self, body: Object) -> None:
        """A HybridJob as it is now."""
        self.hybridjobs.put(body["metadata"]["name"], excerpt(body))

    def replace_hybridjob(self, known: Object, body: Object) -> None:
        """A HybridJob as a write of ours returned it, unless a watch has told more since."""
        name = body["metadata"]["name"]
        if self.hybridjobs.get(name) == known and _uid(known) == _uid(body):
            self.hybridjobs.put(name, excerpt(body))

    def remove_hybridjob(self, body: Object) -> None:
        """A HybridJob is gone; its last state is kept until `deleted` is acted on."""
        name = body["metadata"]["name"]
        self.deleted.setdefault(name, []).append(excerpt(body))
        self.hybridjobs.remove(name, _uid(body))

    def forget_hybridjob(self, name: str, uid: str) -> None:
        """A HybridJob is gone, and nobody is known to have meant anything by it."""
        self.hybridjobs.remove(name, uid)

    def forget_deletions(self, keep: int) -> None:
        """Keep the last ones only, where another replica acts on them."""
        for name in list(self.deleted)[:-keep]:
            del self.deleted[name]

    def put_job(self, body: Object) -> None:
        """A Kubernetes Job as it is now."""
        self._jobs.put(body["metadata"]["name"], excerpt_of_work(body))

    def add_job(self, body: Object) -> None:
        """A Kubernetes Job as a request of ours returned it; what a watch has told stands."""
        if body["metadata"]["name"] not in self._jobs:
            self.put_job(body)

    def remove_job(self, body: Object) -> None:
        """A Kubernetes Job is gone, and what is known of its pod with it."""
        name = body["metadata"]["name"]
        if self._jobs.remove(name, _uid(body)):
            self._pods.drop(name)
            self._logs.pop(name, None)

    def put_pod(self, body: Object) -> None:
        """A pod as it is now, or as it was when it was deleted."""
        name = _job_of(body)
        if name is not None:
            self._pods.put(name, excerpt_of_work(body))

    def remove_pod(self, body: Object) -> None:
        """A pod is gone: its last state stays evidence for as long as its Job exists."""
        name = _job_of(body)
        if name is None:
            return
        if name in self._jobs:
            self._pods.put(name, excerpt_of_work(body))
        else:
            self._pods.remove(name, _uid(body))

    def keep_log(self, pod: Object, text: str) -> None:
        """Keep the tail of an ended pod's log until it is recorded, or its Job is gone."""
        name = _job_of(pod)
        if name is not None and name in self._jobs:
            self._logs[name] = _uid(pod), text

    def log_of(self, pod: Object) -> str | None:
        """That pod's log, if it is kept."""
        uid, text = self._logs.get(_job_of(pod) or "", (None, None))
        return text if uid == _uid(pod) else None

    def forget_log(self, pod: Object) -> None:
        """That pod's log is recorded."""
        if self.log_of(pod) is not None:
            del self._logs[_job_of(pod) or ""]


def _uid(body: Object) -> str:
    uid: str = body["metadata"]["uid"]
    return uid


def hybridjob_of(body: Object) -> str | None:
    """The name of the HybridJob that a Job or pod belongs to."""
    return (body["metadata"].get("labels") or {}).get(names.HYBRIDJOB)


def _job_of(pod: Object) -> str | None:
    return (pod["metadata"].get("labels") or {}).get("batch.kubernetes.io/job-name")
