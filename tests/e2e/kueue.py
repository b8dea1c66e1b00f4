"""Kueue itself in the cluster, for the jobs of one namespace, and a queue of a little CPU."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cluster import kueue
from tests.e2e.release import Release

QUEUE = "team-a"
URGENT = "hybridjobs-e2e-urgent"
"""The PriorityClass of jobs for which others must go."""
_MANAGER = "deployment/kueue-controller-manager"
_API = "kueue.x-k8s.io/v1beta2"
# Of what every cluster has one: named by their user.
_SHARED = "hybridjobs-e2e"


class Kueue:
    """What its administrator does with it."""

    def __init__(self, release: Release, system: Release) -> None:
        self._release = release
        self._system = system

    def make_queue(self) -> None:
        """A queue with room for one job of 20m at a time."""
        for body in _queue():
            self._release.apply(body)

    def stop_queue(self, policy: str) -> None:
        """Let no Workload begin (Hold), take away those that run too (HoldAndDrain), or None."""
        patch = json.dumps({"spec": {"stopPolicy": policy}})
        self._release.kubectl("patch", "clusterqueue", _SHARED, "--type=merge", "-p", patch)

    def workloads_of(self, job_id: str) -> list[dict[str, Any]]:
        """What it keeps of the job's Jobs."""
        found = self._release.objects("workloads.kueue.x-k8s.io")
        return [each for each in found if f"-hj-{job_id}-" in each["metadata"]["name"]]

    def stop(self) -> None:
        """End it; its webhooks stay registered."""
        self._system.kubectl("scale", _MANAGER, "--replicas=0")
        self._system.kubectl(
            "wait", "pod", "--selector=control-plane", "--for=delete", "--timeout=180s"
        )

    def start(self) -> None:
        """Begin again, and return when its webhooks answer."""
        self._system.kubectl("scale", _MANAGER, "--replicas=1")
        self._system.kubectl("rollout", "status", _MANAGER, "--timeout=120s")


def wake(release: Release) -> None:
    """Start the one that a killed run left stopped: what it has marked goes only with its leave."""
    system = _system(release)
    if system.objects("deployments"):
        Kueue(release, system).start()


def _system(release: Release) -> Release:
    return Release(release.cluster, "kueue-system", name="kueue")


@contextmanager
def installed(release: Release) -> Iterator[Kueue]:
    """Kueue from its own chart, beside the release; gone again with all that it made."""
    kueue.load()
    system = _system(release)
    system.helm(
        *("upgrade", "--install", system.name, str(kueue.chart()), "--create-namespace"),
        *("--values", "-", "--wait", "--timeout", "5m"),
        stdin=json.dumps(_values(release.namespace)),
    )
    there = Kueue(release, system)
    try:
        there.start()
        yield there
    finally:
        there.start()  # its objects have finalizers that only it takes away
        release.kubectl("delete", "jobs", "--selector=kueue.x-k8s.io/queue-name", "--wait")
        for body in reversed(_queue()):
            name = body["metadata"]["name"]
            release.kubectl("delete", body["kind"], name, "--ignore-not-found")
        system.uninstall()


def _values(namespace: str) -> dict[str, Any]:
    config = {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": ":8081"},
        "metrics": {"bindAddress": ":8443"},
        "webhook": {"port": 9443},
        "leaderElection": {"leaderElect": False},
        "integrations": {"frameworks": ["batch/job"]},
        # Its webhooks are asked in no other: the rest of the tests do without it.
        "managedJobsNamespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
    }
    repository, _, tag = kueue.IMAGE.partition(":")
    return {
        "managerConfig": {"controllerManagerConfigYaml": json.dumps(config)},
        "controllerManager": {
            "manager": {
                "image": {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
                "resources": {
                    "requests": {"cpu": "50m", "memory": "128Mi"},
                    "limits": {"memory": "512Mi"},
                },
            },
            "readinessProbe": {"initialDelaySeconds": 1},
        },
    }


def _queue() -> list[dict[str, Any]]:
    flavor = {
        "name": _SHARED,
        "resources": [
            {"name": "cpu", "nominalQuota": "30m"},
            {"name": "memory", "nominalQuota": "1Gi"},
        ],
    }
    return [
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": URGENT},
            "value": 1000,
        },
        {
            "apiVersion": _API,
            "kind": "ResourceFlavor",
            "metadata": {"name": _SHARED},
            "spec": {"nodeLabels": {"kubernetes.io/os": "linux"}},
        },
        {
            "apiVersion": _API,
            "kind": "ClusterQueue",
            "metadata": {"name": _SHARED},
            "spec": {
                "namespaceSelector": {},
                "preemption": {"withinClusterQueue": "LowerPriority"},
                "resourceGroups": [{"coveredResources": ["cpu", "memory"], "flavors": [flavor]}],
            },
        },
        {
            "apiVersion": _API,
            "kind": "LocalQueue",
            "metadata": {"name": QUEUE},
            "spec": {"clusterQueue": _SHARED},
        },
    ]
