"""The cluster's keys over TLS, from a server that plays the API server's one endpoint."""

import asyncio
import datetime
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hybridjobs.errors import ClusterUnavailable, ConfigurationError
from hybridjobs.ingress import tokens
from hybridjobs.ingress.tokens import ClusterKeys
from hybridjobs.serving import Server
from tests.integration.ingress.cluster import ISSUER, LocalKeys
from tests.waiting import eventually


@dataclass
class ApiServer:
    """Serves the keys whose names are in `served`; counts how often it is asked."""

    keys: LocalKeys
    token: str
    served: list[str] = field(default_factory=lambda: ["rsa"])
    requests: int = 0
    status: int = 200

    async def jwks(self, request: Request) -> Response:
        self.requests += 1
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return Response(status_code=403)
        documents = [self.keys.public[name] for name in self.served]
        return JSONResponse({"keys": documents}, status_code=self.status)


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """A mounted service account; its CA is also the server's own certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "server.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    token = jwt.encode({"iss": ISSUER}, "whatever" * 8, algorithm="HS256")
    (tmp_path / "token").write_text(token + "\n")
    return tmp_path


@asynccontextmanager
async def serving(api: ApiServer, account: Path) -> AsyncIterator[int]:
    server = Server(
        uvicorn.Config(
            Starlette(routes=[Route("/openid/v1/jwks", api.jwks)]),
            host="127.0.0.1",
            port=0,
            lifespan="off",
            ws="none",
            log_config=None,
            ssl_certfile=str(account / "ca.crt"),
            ssl_keyfile=str(account / "server.key"),
        )
    )
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    try:
        yield server.port
    finally:
        # Not after the 30 seconds that TLS gives an idle client to say good-bye.
        server.should_exit = server.force_exit = True
        await task


@pytest.fixture
def api(account: Path) -> ApiServer:
    return ApiServer(LocalKeys(), (account / "token").read_text().strip())


def _public(key: jwt.PyJWK | None) -> Any:
    assert key is not None
    return key.key.public_numbers()


async def test_keys_are_fetched_once_and_kept(api: ApiServer, account: Path) -> None:
    async with serving(api, account) as port:
        keys = ClusterKeys.in_cluster("127.0.0.1", str(port), account)
        assert await keys.issuer() == ISSUER
        for _ in range(3):
            found = await keys.find("rsa")
            assert _public(found) == api.keys.private["rsa"].public_key().public_numbers()
        assert api.requests == 1
    # The API server is away, and what is known stays good.
    assert await keys.find("rsa") is not None
    await keys.close()


async def test_an_unknown_key_is_looked_for_at_intervals(
    api: ApiServer, account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(api, account) as port:
        keys = ClusterKeys.in_cluster("127.0.0.1", str(port), account)
        assert await keys.find("ec") is None
        api.served.append("ec")
        for _ in range(20):
            assert await keys.find("ec") is None
        assert api.requests == 1
        monkeypatch.setattr(tokens, "_MISS_SECONDS", 0.0)
        assert await keys.find("ec") is not None
        assert api.requests == 2
        await keys.close()


async def test_an_api_server_in_trouble_forgets_no_key(
    api: ApiServer, account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_MISS_SECONDS", 0.0)
    async with serving(api, account) as port:
        keys = ClusterKeys.in_cluster("127.0.0.1", str(port), account)
        api.status = 500
        with pytest.raises(ClusterUnavailable):
            await keys.find("rsa")
        api.status = 200
        assert await keys.find("rsa") is not None
        api.status = 500
        assert await keys.find("ec") is None
        assert await keys.find("rsa") is not None
        await keys.close()


def test_without_a_service_account_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="service account"):
        ClusterKeys.in_cluster("127.0.0.1", "443", tmp_path)
