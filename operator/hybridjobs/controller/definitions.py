"""Whether objects were deleted by somebody who meant it, or went with what they live in."""

from hybridjobs.kube.client import CRDS, NAMESPACES, Kubernetes, NotFound, Resource
from hybridjobs.model import GROUP


async def namespace_goes(kubernetes: Kubernetes, namespace: str) -> bool:
    """Whether the namespace is being deleted, or gone."""
    return await _goes(kubernetes, NAMESPACES, namespace)


async def definition_goes(kubernetes: Kubernetes, resource: Resource) -> bool:
    """Whether the definition of this resource of ours is being deleted, or gone."""
    return await _goes(kubernetes, CRDS, f"{resource.plural}.{GROUP}")


async def _goes(kubernetes: Kubernetes, resource: Resource, name: str) -> bool:
    try:
        found = await kubernetes.get(resource, None, name)
    except NotFound:
        return True
    return "deletionTimestamp" in found["metadata"]
