"""What the processes may do in the cluster, as charts/hybridjobs gives it, and whether they may."""

import asyncio
from dataclasses import dataclass

from hybridjobs.kube.client import (
    EVENTS,
    HYBRIDJOB_SCHEDULES,
    HYBRIDJOB_TYPES,
    HYBRIDJOBS,
    JOBS,
    LEASES,
    PODS,
    Kubernetes,
    Resource,
)
from hybridjobs.kube.reviews import ACCESS_REVIEWS, TOKEN_REVIEWS

_REVIEWS = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", namespaced=False)


@dataclass(frozen=True, slots=True)
class Right:
    """A verb on a kind of object, or on its subresource, in the jobs' namespace."""

    verb: str
    resource: Resource
    subresource: str = ""

    def __str__(self) -> str:
        """As RBAC writes it: `patch hybridjobs.hybridjobs.dev/status`."""
        group = f".{self.resource.group}" if self.resource.group else ""
        subresource = f"/{self.subresource}" if self.subresource else ""
        return f"{self.verb} {self.resource.plural}{group}{subresource}"


def _rights(resource: Resource, *verbs: str, subresource: str = "") -> tuple[Right, ...]:
    return tuple(Right(verb, resource, subresource) for verb in verbs)


RIGHTS: dict[str, tuple[Right, ...]] = {
    "ingress": (
        *_rights(HYBRIDJOBS, "create", "get", "patch", "delete"),
        *_rights(PODS, "get", subresource="log"),
    ),
    "operator": (
        *_rights(HYBRIDJOBS, "list", "watch", "delete"),
        *_rights(HYBRIDJOBS, "patch", subresource="status"),
        *_rights(HYBRIDJOB_TYPES, "list", "watch"),
        *_rights(HYBRIDJOB_TYPES, "patch", subresource="status"),
        *_rights(HYBRIDJOB_SCHEDULES, "list", "watch"),
        *_rights(HYBRIDJOB_SCHEDULES, "patch", subresource="status"),
        *_rights(JOBS, "create", "get", "list", "watch", "patch", "delete"),
        *_rights(PODS, "list", "watch", "patch"),
        *_rights(PODS, "get", subresource="log"),
        *_rights(EVENTS, "create", "patch", "list"),
        *_rights(LEASES, "create"),
    ),
}


async def missing_rights(kubernetes: Kubernetes, namespace: str, process: str) -> tuple[Right, ...]:
    """Those rights of the process that these credentials do not have (SelfSubjectAccessReview)."""
    rights = RIGHTS[process]
    answers = await asyncio.gather(*(_allowed(kubernetes, namespace, right) for right in rights))
    return tuple(right for right, allowed in zip(rights, answers, strict=True) if not allowed)


async def may_review(kubernetes: Kubernetes) -> bool:
    """Whether these credentials may ask who holds a token and what they may do, cluster-wide."""
    rights = _rights(TOKEN_REVIEWS, "create") + _rights(ACCESS_REVIEWS, "create")
    return all(await asyncio.gather(*(_allowed(kubernetes, "", right) for right in rights)))


async def _allowed(kubernetes: Kubernetes, namespace: str, right: Right) -> bool:
    attributes = {
        "namespace": namespace,
        "verb": right.verb,
        "group": right.resource.group,
        "resource": right.resource.plural,
        "subresource": right.subresource,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    review = await kubernetes.create(_REVIEWS, None, body)
    return bool(review["status"]["allowed"])
