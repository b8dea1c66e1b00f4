"""What the release ships as files: HybridJobTypes, and HybridJobSchedules of theirs.

The chart cannot contain them as objects: helm checks every object against the API before the CRDs
of the same release are there.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import structlog

from hybridjobs.kube.client import (
    HYBRIDJOB_SCHEDULES,
    HYBRIDJOB_TYPES,
    Forbidden,
    Invalid,
    Kubernetes,
    Object,
    Resource,
)
from hybridjobs.type_files import read_objects

log = structlog.get_logger(__name__)

_RESOURCES = {"HybridJobType": HYBRIDJOB_TYPES, "HybridJobSchedule": HYBRIDJOB_SCHEDULES}


async def apply_shipped(
    kubernetes: Kubernetes, folder: Path, *, namespace: str, selector: str
) -> None:
    """Apply every object in `folder`, and delete those shipped before and no longer there.

    Those of the same name that `selector` does not match are an administrator's, and stay. One
    that the API server refuses (its schema, a rule, a policy) keeps none of the others waiting.
    """
    bodies = await asyncio.to_thread(read_objects, folder, _RESOURCES)
    for kind, resource in _RESOURCES.items():
        theirs = [body for body in bodies if body["kind"] == kind]
        await _apply(kubernetes, resource, theirs, namespace=namespace, selector=selector)


async def _apply(
    kubernetes: Kubernetes,
    resource: Resource,
    bodies: Sequence[Object],
    *,
    namespace: str,
    selector: str,
) -> None:
    ours = await kubernetes.list(resource, namespace, labels=selector)
    owned = {body["metadata"]["name"] for body in ours}
    there = {body["metadata"]["name"] for body in await kubernetes.list(resource, namespace)}
    shipped = {body["metadata"]["name"] for body in bodies}
    for body in bodies:
        name = body["metadata"]["name"]
        if name in there - owned:
            log.warning("an administrator's object is left as it is", kind=body["kind"], name=name)
            continue
        try:
            await kubernetes.apply(resource, namespace, body, force=True)
        except (Invalid, Forbidden) as error:
            log.error("a shipped object is refused", kind=body["kind"], name=name, error=str(error))
    for body in ours:
        metadata = body["metadata"]
        if metadata["name"] not in shipped:
            log.info("no longer shipped", kind=body["kind"], name=metadata["name"])
            await kubernetes.delete(resource, namespace, metadata["name"], uid=metadata["uid"])
