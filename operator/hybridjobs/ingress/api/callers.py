"""Who calls the API: the bootstrap token, a token of the table, or somebody the cluster knows."""

import hashlib
import hmac
import re
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import jwt
from pydantic import SecretStr

from hybridjobs.ingress.lookups import Lookups
from hybridjobs.model import ApiScope
from hybridjobs.store.database import Database
from hybridjobs.store.tokens import TOKEN, ApiToken, digest_of, find_token

if TYPE_CHECKING:
    from hybridjobs.kube.reviews import Reviews, User

BOOTSTRAP = "bootstrap"

_MAX_JWT_BYTES = 16 * 1024
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_VERBS: dict[ApiScope, tuple[str, ...]] = {
    ApiScope.READ: ("get", "list"),
    ApiScope.SUBMIT: ("create",),
    ApiScope.OPERATE: ("update", "delete"),
}


class Caller(Protocol):
    """Somebody who is known. `name` is for the record: `background_jobs.submitted_by`."""

    @property
    def name(self) -> str:
        """Who they are."""

    async def refusal(self, needed: ApiScope) -> str | None:
        """Why they may not do what needs this scope; None: they may."""


class Callers(Protocol):
    """One way to be known."""

    async def find(self, token: str) -> Caller | None:
        """Whose token this is; None: nobody's, as far as is known here. Unavailable."""


class TokenCaller:
    """The holder of a token that has a scope."""

    def __init__(self, name: str, scope: ApiScope) -> None:
        self.name = name
        self._scope = scope

    async def refusal(self, needed: ApiScope) -> str | None:
        """By the order of the scopes."""
        if self._scope.includes(needed):
            return None
        return f"the scope of {self.name} is {self._scope}, and this needs {needed}"


class BootstrapToken:
    """The token that the settings hold: every scope, also without a database."""

    def __init__(self, token: SecretStr) -> None:
        # Digests are of one length, so that the comparison does not tell the secret's.
        self._digest = digest_of(token.get_secret_value())

    async def find(self, token: str) -> Caller | None:
        """Compared in constant time."""
        if hmac.compare_digest(digest_of(token), self._digest):
            return TokenCaller(BOOTSTRAP, ApiScope.OPERATE)
        return None


class TableTokens:
    """The tokens of `api_tokens`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tokens: Lookups[ApiToken] = Lookups("the database")

    async def find(self, token: str) -> Caller | None:
        """Looked up by its digest."""
        if not TOKEN.fullmatch(token):
            return None
        digest = digest_of(token)
        found = await self._tokens.get(digest, lambda: self._read(digest))
        if found is None or _is_over(_timestamp(found.expires_at)):
            return None
        return TokenCaller(f"token:{found.name}", found.scope)

    async def _read(self, digest: bytes) -> ApiToken | None:
        async with self._database.connection() as connection:
            return await find_token(connection, digest)


class ClusterCallers:
    """Service accounts and users of the cluster, with the rights on HybridJobs that RBAC gives."""

    def __init__(self, reviews: "Reviews") -> None:
        self._reviews = reviews
        self._users: Lookups[User] = Lookups("the Kubernetes API")
        self._rights: Lookups[bool] = Lookups("the Kubernetes API")

    async def find(self, token: str) -> Caller | None:
        """Reviewed by the API server, unless it is no JWT, or one that has expired."""
        if len(token) > _MAX_JWT_BYTES or not _JWT.fullmatch(token):
            return None
        try:
            claims = jwt.decode(token, options={"verify_signature": False, "verify_exp": True})
        except jwt.PyJWTError:
            return None
        digest = hashlib.sha256(token.encode()).digest()
        user = await self._users.get(digest, lambda: self._reviews.user_of(token))
        if user is None or _is_over(claims.get("exp")):
            return None
        return _ClusterCaller(user, self)

    async def may(self, user: "User", needed: ApiScope) -> bool:
        """Whether RBAC gives the user all that the scope stands for."""
        verbs = _VERBS[needed]
        key = (user, needed)
        return bool(await self._rights.get(key, lambda: self._reviews.may(user, verbs)))

    def missing(self, user: "User", needed: ApiScope) -> str:
        """What a user who may not do this is told."""
        verbs = " and ".join(_VERBS[needed])
        return (
            f"this needs the scope {needed}: {user.name} must be allowed to {verbs} "
            f"hybridjobs.hybridjobs.dev in namespace {self._reviews.namespace}"
        )


class _ClusterCaller:
    def __init__(self, user: "User", callers: ClusterCallers) -> None:
        self.name = user.name
        self._user = user
        self._callers = callers

    async def refusal(self, needed: ApiScope) -> str | None:
        if await self._callers.may(self._user, needed):
            return None
        return self._callers.missing(self._user, needed)


def callers_of(
    bootstrap: SecretStr | None, database: Database, reviews: "Reviews | None"
) -> Sequence[Callers]:
    """The ways to be known, in the order in which they are asked."""
    ways: list[Callers] = [TableTokens(database)]
    if bootstrap is not None and bootstrap.get_secret_value():
        ways.insert(0, BootstrapToken(bootstrap))
    if reviews is not None:
        ways.append(ClusterCallers(reviews))
    return ways


def _timestamp(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _is_over(expires_at: float | None) -> bool:
    # Checked at each use: what is remembered may expire meanwhile.
    return expires_at is not None and expires_at <= time.time()
