"""Who a worker is: its pod's projected service-account token, verified without asking anybody.

Claims: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/ (bound
tokens); keys: the API server's `/openid/v1/jwks`.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, Self

import httpx
import jwt
import structlog

from hybridjobs.errors import ClusterUnavailable, ConfigurationError
from hybridjobs.ingress.asgi import bearer_token
from hybridjobs.ingress.problems import Refused

log = structlog.get_logger(__name__)

_ALGORITHMS = ["RS256", "ES256"]
_LEEWAY_SECONDS = 10
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_MISS_SECONDS = 10.0
_REFRESH_SECONDS = 3600.0
_REQUEST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Caller:
    """The pod that a valid token was made for."""

    service_account: str
    pod_name: str
    pod_uid: str


class KeySource(Protocol):
    """Where the keys that sign tokens come from."""

    async def issuer(self) -> str:
        """The `iss` of valid tokens."""

    async def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key of that id; ClusterUnavailable where no keys are known at all."""


class WorkerTokens:
    """Verifies tokens: signature, issuer, audience, times, namespace, and that a pod holds them."""

    def __init__(self, keys: KeySource, *, audience: str, namespace: str) -> None:
        self._keys = keys
        self._audience = audience
        self._namespace = namespace

    async def verify(self, authorization: bytes) -> Caller:
        """The caller of a request with this Authorization header; Refused (401, 403)."""
        token = bearer_token(authorization)
        if not token:
            raise _unauthorized("send the pod's token: Authorization: Bearer …")
        claims = await self._claims(token)
        kubernetes = claims.get("kubernetes.io")
        try:
            namespace = kubernetes["namespace"]  # type: ignore[index]
            caller = Caller(
                service_account=kubernetes["serviceaccount"]["name"],  # type: ignore[index]
                pod_name=kubernetes["pod"]["name"],  # type: ignore[index]
                pod_uid=kubernetes["pod"]["uid"],  # type: ignore[index]
            )
        except (KeyError, TypeError):
            raise forbidden("the token is not bound to a pod") from None
        if namespace != self._namespace:
            raise forbidden("the token is of another namespace")
        return caller

    async def _claims(self, token: bytes) -> dict[str, Any]:
        try:
            key_id = jwt.get_unverified_header(token).get("kid", "")
            key = await self._keys.find(key_id)
            if key is None:
                raise _unauthorized("the token is signed by a key that the cluster does not have")
            return jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS,
                audience=self._audience,
                issuer=await self._keys.issuer(),
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise _unauthorized(f"the token is not valid: {type(error).__name__}") from None


class ClusterKeys:
    """The keys of the cluster that this process runs in.

    Fetched when a token names a key that is not known, at most every 10 s, and again each hour;
    what is known stays in use while the API server is away.
    """

    def __init__(self, url: str, account: Path, verify: ssl.SSLContext) -> None:
        self._url = f"{url}/openid/v1/jwks"
        self._account = account
        self._client = httpx.AsyncClient(verify=verify, timeout=_REQUEST_SECONDS, trust_env=False)
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")

    @classmethod
    def in_cluster(cls, host: str, port: str, account: Path = _ACCOUNT) -> Self:
        """By what every pod is given; ConfigurationError where it was not."""
        try:
            verify = ssl.create_default_context(cafile=account / "ca.crt")
        except OSError as error:
            raise ConfigurationError(f"no service account is mounted here: {error}") from error
        name = f"[{host}]" if ":" in host else host
        return cls(f"https://{name}:{port}", account, verify)

    async def issuer(self) -> str:
        """The issuer of our own token, which is the workers' too."""
        claims = jwt.decode(self._token(), options={"verify_signature": False})
        return str(claims["iss"])

    async def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key of that id, if the cluster has it."""
        now = monotonic()
        is_stale = key_id not in self._keys or now - self._fetched_at > _REFRESH_SECONDS
        if is_stale and now - self._tried_at > _MISS_SECONDS:
            self._tried_at = now
            await self._fetch()
        if not self._keys:
            raise ClusterUnavailable("the cluster's keys are not known yet")
        return self._keys.get(key_id)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _fetch(self) -> None:
        headers = {"Authorization": f"Bearer {self._token()}"}
        try:
            response = await self._client.get(self._url, headers=headers)
            response.raise_for_status()
            keys = jwt.PyJWKSet.from_dict(response.json()).keys
        except (httpx.HTTPError, jwt.PyJWTError, ValueError) as error:
            log.warning("keys not fetched", error=type(error).__name__)
            return
        self._keys = {key.key_id: key for key in keys if key.key_id}
        self._fetched_at = monotonic()

    def _token(self) -> str:
        return (self._account / "token").read_text().strip()


def forbidden(detail: str) -> Refused:
    """A caller that is known, and may not do this."""
    return Refused(403, "Forbidden", detail)


def _unauthorized(detail: str) -> Refused:
    return Refused(
        401, "Unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="hybridjobs"'}
    )
