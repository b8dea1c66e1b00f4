"""Who holds a bearer token of the cluster, and what they may do: the API server's own answers.

TokenReview rather than the cluster's public keys: it knows users as well as service accounts, it
gives the groups that RBAC binds roles to, and it refuses the token of an account or pod that is
gone. What somebody may do is the API server's to say anyway, so keys of our own would not make
anything work while it is away.
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#webhook-token-authentication
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from hybridjobs.errors import ClusterUnavailable
from hybridjobs.kube.client import HYBRIDJOBS, ApiError, Kubernetes, Object, Resource

log = structlog.get_logger(__name__)

TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", namespaced=False)
ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", namespaced=False)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody as the API server knows them: `extra` by name, both sorted, so that it is a key."""

    name: str
    uid: str
    groups: tuple[str, ...]
    extra: tuple[tuple[str, tuple[str, ...]], ...]


class Reviews:
    """The reviews of one jobs namespace. ClusterUnavailable where the API server cannot answer."""

    def __init__(self, kubernetes: Kubernetes, *, audiences: Sequence[str], namespace: str) -> None:
        self._kubernetes = kubernetes
        self._audiences = tuple(audiences)
        self.namespace = namespace

    async def user_of(self, token: str) -> User | None:
        """Whose token this is; None: nobody's, or not made for one of our audiences."""
        spec = {"token": token, "audiences": list(self._audiences)}
        status = await self._review(TOKEN_REVIEWS, "TokenReview", spec)
        # An authenticator that knows no audiences leaves them out: then it is for anybody.
        if not status.get("authenticated") or not set(self._audiences) & set(
            status.get("audiences") or ()
        ):
            return None
        user = status["user"]
        return User(
            name=user["username"],
            uid=user.get("uid", ""),
            groups=tuple(sorted(user.get("groups") or ())),
            extra=tuple(sorted((k, tuple(v)) for k, v in (user.get("extra") or {}).items())),
        )

    async def may(self, user: User, verbs: Sequence[str]) -> bool:
        """Whether the user may do all of that with HybridJobs in the jobs namespace."""
        return all(await asyncio.gather(*(self._may(user, verb) for verb in verbs)))

    async def _may(self, user: User, verb: str) -> bool:
        spec = {
            "user": user.name,
            "uid": user.uid,
            "groups": list(user.groups),
            "extra": {name: list(values) for name, values in user.extra},
            "resourceAttributes": {
                "namespace": self.namespace,
                "verb": verb,
                "group": HYBRIDJOBS.group,
                "resource": HYBRIDJOBS.plural,
            },
        }
        status = await self._review(ACCESS_REVIEWS, "SubjectAccessReview", spec)
        return bool(status.get("allowed"))

    async def _review(self, resource: Resource, kind: str, spec: Object) -> dict[str, Any]:
        body = {
            "apiVersion": f"{resource.group}/{resource.version}",
            "kind": kind,
            "spec": spec,
        }
        try:
            answer = await self._kubernetes.create(resource, None, body)
        except ApiError as error:
            # The message may quote what was sent, which is a token.
            log.warning("no review", kind=kind, status=error.status, reason=error.reason)
            raise ClusterUnavailable(f"the API server gives no {kind} ({error.status})") from None
        status: dict[str, Any] = answer["status"]
        return status
