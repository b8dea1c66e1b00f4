"""A cluster's keys, of our own making: real JWTs, signed and verified like those of Kubernetes."""

import time
from typing import Any
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

ISSUER = "https://kubernetes.default.svc.cluster.local"


class LocalKeys:
    """A KeySource with an RSA and an EC key."""

    def __init__(self) -> None:
        self.private: dict[str, Any] = {
            "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "ec": ec.generate_private_key(ec.SECP256R1()),
        }
        self.public = {name: _public(name, key) for name, key in self.private.items()}

    async def issuer(self) -> str:
        return ISSUER

    async def find(self, key_id: str) -> jwt.PyJWK | None:
        document = self.public.get(key_id)
        return None if document is None else jwt.PyJWK(document)

    def token(
        self,
        job_id: UUID | str,
        attempt: int,
        *,
        key: str = "rsa",
        suffix: str = "abcde",
        pod_uid: str = "pod-uid-1",
        account: str = "hybridjobs-worker",
        namespace: str = "jobs",
        signer: Any = None,
        **claims: Any,
    ) -> str:
        now = int(time.time())
        return jwt.encode(
            {
                "iss": ISSUER,
                "aud": ["hybridjobs"],
                "iat": now,
                "nbf": now,
                "exp": now + 3600,
                "sub": f"system:serviceaccount:{namespace}:{account}",
                "kubernetes.io": {
                    "namespace": namespace,
                    "pod": {"name": f"hj-{job_id}-{attempt}-{suffix}", "uid": pod_uid},
                    "serviceaccount": {"name": account, "uid": "account-uid"},
                },
                **claims,
            },
            signer or self.private[key],
            algorithm="RS256" if key == "rsa" else "ES256",
            headers={"kid": key},
        )


def _public(name: str, key: Any) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if name == "rsa" else jwt.algorithms.ECAlgorithm
    document: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    return {**document, "kid": name, "alg": "RS256" if name == "rsa" else "ES256", "use": "sig"}
