"""What the watches have told: the last state of every HybridJob, Job and pod of ours.

A plain index of our own, since kopf's takes quadratic time to fill. Keyed by the HybridJob's name,
which is a label on its Jobs and pods.
"""

from typing import Any

from hybridjobs.kube import names
from hybridjobs.model import JobType

Object = dict[str, Any]


class Cache:
    """Belongs to one event loop; written by the watch, read by the reconciler."""

    def __init__(self) -> None:
        self.hybridjobs: dict[str, Object] = {}
        self.deleted: dict[str, Object] = {}  # HybridJobs whose deletion is not yet acted on
        self.types: dict[str, JobType] = {}  # by type
        self._jobs: dict[str, Object] = {}  # by the Job's name
        self._pods: dict[str, Object] = {}  # by the Job's name; a Job of ours has one pod

    def job(self, name: str) -> Object | None:
        """The Kubernetes Job of that name."""
        return self._jobs.get(name)

    def pod_of(self, job_name: str) -> Object | None:
        """The last known state of the Job's pod, also after the pod is gone."""
        return self._pods.get(job_name)

    def put_hybridjob(self, body: Object) -> None:
        """A HybridJob as it is now."""
        self.hybridjobs[body["metadata"]["name"]] = body

    def remove_hybridjob(self, body: Object) -> None:
        """A HybridJob is gone; its last state is kept until `deleted` is acted on."""
        name = body["metadata"]["name"]
        self.hybridjobs.pop(name, None)
        self.deleted[name] = body

    def put_job(self, body: Object) -> None:
        """A Kubernetes Job as it is now."""
        self._jobs[body["metadata"]["name"]] = body

    def remove_job(self, body: Object) -> None:
        """A Kubernetes Job is gone, and what is known of its pod with it."""
        self._jobs.pop(body["metadata"]["name"], None)
        self._pods.pop(body["metadata"]["name"], None)

    def put_pod(self, body: Object) -> None:
        """A pod as it is now, or as it was when it was deleted."""
        name = _job_of(body)
        if name is not None:
            self._pods[name] = body

    def remove_pod(self, body: Object) -> None:
        """A pod is gone: its last state stays evidence for as long as its Job exists."""
        name = _job_of(body)
        if name is None:
            return
        if name in self._jobs:
            self._pods[name] = body
        else:
            self._pods.pop(name, None)


def hybridjob_of(body: Object) -> str | None:
    """The name of the HybridJob that a Job or pod belongs to."""
    return (body["metadata"].get("labels") or {}).get(names.HYBRIDJOB)


def _job_of(pod: Object) -> str | None:
    return (pod["metadata"].get("labels") or {}).get("batch.kubernetes.io/job-name")
