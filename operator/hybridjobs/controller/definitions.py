"""Whether objects were deleted by somebody who meant it, or went with what they live in."""

from hybridjobs.kube.client import CRDS, NAMESPACES, Kubernetes, NotFound, Resource
from hybridjobs.model import GROUP


async def is_going(kubernetes: Kubernetes, resource: Resource, namespace: str) -> bool:
    """Whether the resource's definition or the namespace is deleted, or is about to be."""
    try:
        around = (
            await kubernetes.get(CRDS, None, f"{resource.plural}.{GROUP}"),
            await kubernetes.get(NAMESPACES, None, namespace),
        )
    except NotFound:
        return True
    return any("deletionTimestamp" in each["metadata"] for each in around)
