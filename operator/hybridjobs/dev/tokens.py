"""Workers' tokens without a cluster: signed by a key that lives as long as this process."""

import time
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from hybridjobs.kube import names
from hybridjobs.settings import IngressSettings

_ISSUER = "hybridjobs-dev"
_KEY_ID = "dev"
_MARGIN_SECONDS = 3600


class LocalKeys:
    """The key, and the tokens made with it; what the ingress verifies them by."""

    def __init__(self) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        public = ECAlgorithm.to_jwk(self._private.public_key(), as_dict=True)
        self._public = jwt.PyJWK({**public, "kid": _KEY_ID, "alg": "ES256"})

    async def issuer(self) -> str:
        """The `iss` of our tokens."""
        return _ISSUER

    async def find(self, key_id: str) -> jwt.PyJWK | None:
        """The one key."""
        return self._public if key_id == _KEY_ID else None

    def token(
        self,
        settings: IngressSettings,
        job_id: UUID,
        attempt: int,
        *,
        uid: str,
        deadline_seconds: int,
    ) -> str:
        """What a pod of the attempt would be given; `uid` is the process'."""
        now = int(time.time())
        claims = {
            "iss": _ISSUER,
            "aud": [settings.worker_audience],
            "iat": now,
            "exp": now + deadline_seconds + _MARGIN_SECONDS,
            "kubernetes.io": {
                "namespace": settings.namespace,
                "serviceaccount": {"name": settings.worker_service_account},
                "pod": {"name": pod_name(job_id, attempt), "uid": uid},
            },
        }
        return jwt.encode(claims, self._private, algorithm="ES256", headers={"kid": _KEY_ID})


def pod_name(job_id: UUID, attempt: int) -> str:
    """The name that a local process has in place of a pod's."""
    return f"{names.pod_prefix(job_id, attempt)}local"
