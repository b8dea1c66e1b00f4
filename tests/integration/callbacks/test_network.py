"""What is connected to is what was checked, over TLS as well."""

import ipaddress
import socket
import ssl
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hybridjobs.callbacks.deliverer import MAX_SENDS
from hybridjobs.callbacks.network import AddressRefused, GuardedNetwork, Resolver
from hybridjobs.callbacks.targets import Targets
from tests.integration.callbacks.conftest import SECRET, Calls, Delivering
from tests.integration.callbacks.receiver import receiving


class Names:
    """A resolver whose answers change: each in turn, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def _certificate(folder: Path, *hosts: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for a server of these names, and for a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = folder / "tls.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


async def test_https_keeps_name_and_certificate_while_the_address_is_ours_to_choose(
    calls: Calls, delivering: Delivering, tmp_path: Path
) -> None:
    server, client = _certificate(tmp_path, "receiver.example")
    shown: list[str | None] = []
    server.sni_callback = lambda _, name, __: shown.append(name)
    names = Names(["127.0.0.1"])
    async with receiving(tls=server) as receiver, delivering(resolve=names, tls=client):
        url = receiver.url(host="receiver.example")
        await calls.in_status(await calls.ended(url), "delivered")
    [message] = receiver.messages
    message.verify(SECRET)
    assert message.headers["host"] == f"receiver.example:{receiver.port}"
    assert shown == ["receiver.example"]
    assert names.asked == ["receiver.example"]


async def test_a_certificate_of_another_name_is_refused(
    calls: Calls, delivering: Delivering, tmp_path: Path
) -> None:
    server, client = _certificate(tmp_path, "other.example", "127.0.0.1")
    names = Names(["127.0.0.1"])
    async with receiving(tls=server) as receiver, delivering(resolve=names, tls=client):
        row = await calls.tried(await calls.ended(receiver.url(host="receiver.example")))
        assert receiver.messages == []
    assert "certificate" in row["last_error"].lower()


async def test_a_name_that_leads_inside_is_never_connected_to(
    calls: Calls, delivering: Delivering, tmp_path: Path
) -> None:
    server, client = _certificate(tmp_path, "receiver.example")
    names = Names(["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254"])
    async with (
        receiving(tls=server) as receiver,
        delivering(allow="", resolve=names, tls=client),
    ):
        row = await calls.tried(await calls.ended(receiver.url(host="receiver.example")))
        assert (receiver.messages, receiver.most_open) == ([], 0)
    assert "network that callbacks may not enter" in row["last_error"]


async def test_a_name_that_changes_between_look_ups_cannot_lead_inside(
    calls: Calls, delivering: Delivering, tmp_path: Path
) -> None:
    """Allowed at first, inside a moment later, as a rebinding name server answers."""
    server, client = _certificate(tmp_path, "receiver.example")
    async with receiving(tls=server) as inside:
        # 127.0.0.9, the only one allowed, has no server; the one inside is at 127.0.0.1.
        names = Names(["127.0.0.9"], ["127.0.0.1"])
        async with delivering(allow="127.0.0.9/32", resolve=names, tls=client):
            job_id = await calls.ended(inside.url(host="receiver.example"))
            first = await calls.tried(job_id)
            assert names.asked == ["receiver.example"]
            await calls.make_due()
            second = await calls.tried(job_id, 2)
            assert names.asked == ["receiver.example"] * 2
        assert (inside.messages, inside.most_open) == ([], 0)
    assert "ConnectError" in first["last_error"]
    assert "may not enter" in second["last_error"]


async def test_of_several_addresses_only_permitted_ones_are_tried_one_after_another(
    calls: Calls, delivering: Delivering
) -> None:
    names = Names(["10.0.0.1", "127.0.0.9", "127.0.0.1"])
    async with receiving() as receiver, delivering(resolve=names, allow="127.0.0.0/8,a.example"):
        await calls.in_status(await calls.ended(receiver.url(host="a.example")), "delivered")


async def test_http_is_refused_unless_the_host_is_listed(
    calls: Calls, delivering: Delivering
) -> None:
    names = Names(["127.0.0.1"])
    async with receiving() as receiver, delivering(resolve=names, allow="127.0.0.0/8"):
        row = await calls.in_status(
            await calls.ended(receiver.url(host="receiver.example")), "failed"
        )
        assert receiver.messages == []
    assert row["last_error"] == "the URL must be https"


@pytest.mark.parametrize(
    "host",
    [
        *("127.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "017700000001", "0177.1"),
        *("localhost", "::1", "::ffff:127.0.0.1", "0", "::"),
    ],
)
async def test_however_an_address_is_spelt_the_one_that_is_meant_is_checked(host: str) -> None:
    """Of what the system's resolver makes an address, whatever was let through before."""
    resolver = Resolver()
    try:
        async with receiving() as receiver:
            network = GuardedNetwork(Targets(), resolver)
            with pytest.raises(AddressRefused):
                await network.connect_tcp(host, receiver.port)
            assert receiver.most_open == 0
    finally:
        resolver.close()


async def test_a_server_that_wants_a_certificate_of_ours_is_a_failure_with_a_reason(
    calls: Calls, delivering: Delivering, tmp_path: Path
) -> None:
    """With TLS 1.3 it says so after the handshake, where an answer is read, or hangs up."""
    server, client = _certificate(tmp_path, "receiver.example")
    server.verify_mode = ssl.CERT_REQUIRED
    names = Names(["127.0.0.1"])
    async with receiving(tls=server) as receiver, delivering(resolve=names, tls=client):
        row = await calls.tried(await calls.ended(receiver.url(host="receiver.example")))
        assert receiver.messages == []
    assert row["status"] == "pending"
    kind, _, reason = row["last_error"].partition(": ")
    assert kind.endswith("Error")
    assert len(reason) > 10


async def test_a_silent_name_server_holds_up_no_other_host(
    calls: Calls, delivering: Delivering
) -> None:
    """As many names of it as there are places for messages but one."""
    silence = threading.Event()

    def look_up(host: str, port: int) -> list[Any]:
        if host.endswith(".silent"):
            silence.wait()
        return socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)

    resolver = Resolver(look_up)
    try:
        async with receiving() as receiver, delivering(resolve=resolver, try_seconds=600):
            for number in range(MAX_SENDS - 1):
                await calls.ended(f"https://{number}.silent/")
            await calls.until_under_way(MAX_SENDS - 1)
            await calls.ended(receiver.url())
            await receiver.received(1)
    finally:
        silence.set()
        resolver.close()


async def test_a_name_without_an_address_is_a_failure(calls: Calls, delivering: Delivering) -> None:
    label = "x" * 70
    async with delivering():
        row = await calls.tried(await calls.ended(f"https://{label}.invalid/"))
    assert row["status"] == "pending"
    assert row["last_error"]
