"""kopf's watches on a real API server, and what they tell."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from kubernetes.aio.client import Configuration

from hybridjobs.controller.watch import SELECTORS, start_watching
from hybridjobs.controller.watchdog import Told, Watchdog
from hybridjobs.kube import names
from hybridjobs.kube.client import (
    HYBRIDJOB_SCHEDULES,
    HYBRIDJOB_TYPES,
    HYBRIDJOBS,
    JOBS,
    PODS,
    Kubernetes,
    Object,
    Resource,
)
from tests.waiting import eventually

WATCHED = [HYBRIDJOBS, JOBS, PODS, HYBRIDJOB_TYPES, HYBRIDJOB_SCHEDULES]
_POD = {
    "automountServiceAccountToken": False,
    "restartPolicy": "Never",
    "nodeSelector": {"hybridjobs.dev/node": "none"},
    "containers": [{"name": "main", "image": "hybridjobs:none"}],
}
OBJECTS: dict[str, tuple[str, Object]] = {
    "hybridjobs": ("HybridJob", {"type": "test/none", "payload": {}}),
    "jobs": ("Job", {"suspend": True, "template": {"spec": _POD}}),
    "pods": ("Pod", _POD),
    "hybridjobtypes": ("HybridJobType", {"type": "test/hybridjobtypes"}),
    "hybridjobschedules": ("HybridJobSchedule", {"schedule": "@daily", "type": "test/none"}),
}


@dataclass
class Watching:
    """kopf's watches, what they told, and a client to change things with."""

    kubernetes: Kubernetes
    namespace: str
    told: Told
    task: asyncio.Task[None] = field(init=False)
    seen: list[tuple[str | None, str]] = field(default_factory=list)  # kind of event, name

    def watchdog(self, *, stale_seconds: float = 1.0) -> Watchdog:
        return Watchdog(
            self.kubernetes,
            self.told,
            WATCHED,
            SELECTORS,
            namespace=self.namespace,
            check_seconds=0.3,
            stale_seconds=stale_seconds,
        )

    async def make(self, resource: Resource, name: str) -> str:
        """An object that nothing acts on; its uid."""
        group = f"{resource.group}/{resource.version}" if resource.group else resource.version
        kind, spec = OBJECTS[resource.plural]
        body = {
            "apiVersion": group,
            "kind": kind,
            "metadata": {"name": name, "labels": dict([names.SELECTOR.split("=")])},
            "spec": spec,
        }
        made = await self.kubernetes.create(resource, self.namespace, body)
        uid: str = made["metadata"]["uid"]
        return uid

    async def told_of(self, name: str, *kinds: str) -> None:
        """Wait until its coming was told, by a list or a watch; or another kind of event."""
        wanted = kinds or (None, "ADDED")
        await eventually(lambda: any((kind, name) in self.seen for kind in wanted))


@asynccontextmanager
async def watching(
    configuration: Configuration,
    kubernetes: Kubernetes,
    namespace: str,
    resources: list[Resource] = WATCHED,
) -> AsyncIterator[Watching]:
    found = Watching(kubernetes, namespace, Told())

    async def on_event(kind: str | None, body: Object) -> None:
        found.seen.append((kind, body["metadata"]["name"]))

    handlers = dict.fromkeys(resources, on_event)
    found.task = await start_watching(configuration, handlers, found.told, namespace=namespace)
    try:
        yield found
    finally:
        found.task.cancel()
        await asyncio.wait([found.task])
