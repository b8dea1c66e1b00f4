"""Clients that mean ill, and a real ingress process: others are served, and memory stays flat."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.conftest import DatabaseUrls
from tests.integration.ingress.process import Process, started
from tests.integration.ingress.test_protocol import HEAD, connected, status_of

GROWTH_BYTES = 150 * 1024 * 1024
STALLED = 500
IDLE = 2000


def resident_bytes(process: Process) -> int:
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


@pytest.fixture
async def process(database_urls: DatabaseUrls) -> AsyncIterator[Process]:
    async with started(database_urls.service, HYBRIDJOBS_INLINE_CHILDREN="0") as process:
        await process.ready()
        yield process


@asynccontextmanager
async def nobody_is_hurt(process: Process) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Others are served when the yielded function is called and at the end, memory stays flat."""
    # Each on a connection of its own: one kept is the one that the listener has waited for longest.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=30, limits=limits) as client:

        async def served() -> None:
            assert await process.deliver(client, "one") == 204
            assert (await client.get(f"{process.url('health')}/readyz")).status_code == 200

        await served()
        before = resident_bytes(process)

        async def served_and_flat() -> None:
            await served()
            assert resident_bytes(process) - before < GROWTH_BYTES

        yield served_and_flat
        await served_and_flat()


async def test_slow_loris(process: Process) -> None:
    async with nobody_is_hurt(process) as check, AsyncExitStack() as stack:
        writers = []
        for number in range(STALLED):
            _, writer = await stack.enter_async_context(connected(process.ports["webhook"]))
            in_body = b"Content-Length: 1000000\r\n\r\n{" if number % 2 else b""
            writer.write(HEAD + in_body)
            writers.append(writer)
        for step in range(5):
            for number, writer in enumerate(writers):
                writer.write(b" " if number % 2 else b"X-%d: x\r\n" % step)
            await check()


async def test_a_gigabyte_that_is_declared_is_not_even_begun(process: Process) -> None:
    async with nobody_is_hurt(process), connected(process.ports["webhook"]) as (reader, writer):
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % 2**30)
        assert await status_of(reader) == 413
        assert b"connection: close" in await reader.read()


async def test_a_gigabyte_in_chunks_is_cut_at_the_limit(process: Process) -> None:
    chunk = b"10000\r\n" + 2**16 * b" " + b"\r\n"
    async with nobody_is_hurt(process) as check, AsyncExitStack() as stack:

        async def send() -> int:
            _, writer = await stack.enter_async_context(connected(process.ports["webhook"]))
            writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            sent = 0
            try:
                while sent < 2**30:
                    writer.write(chunk)
                    await writer.drain()
                    sent += 2**16
            except ConnectionError:
                pass
            return sent

        # The limit of a webhook is 25 MiB; buffers on the way take some more.
        for sent in await asyncio.gather(*(send() for _ in range(3))):
            assert sent < 2**26
        await check()


async def test_two_thousand_idle_connections(process: Process) -> None:
    async with nobody_is_hurt(process) as check, AsyncExitStack() as stack:
        for listener in ("webhook", "api"):
            for _ in range(IDLE):
                connection = socket.create_connection(("127.0.0.1", process.ports[listener]))
                stack.enter_context(closing(connection))
            await check()


_TOKEN = st.text("abcXYZ-_", min_size=1, max_size=12).map(str.encode)
_JUNK = st.binary(max_size=60)
_METHOD = st.sampled_from([b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"PRI"])
_TARGET = st.sampled_from(
    [b"/", b"/webhooks/github", b"/webhooks/github?%", b"*", b"//", b"/%00", b"/%ff", b"a:1"]
) | _JUNK.map(lambda junk: b"/" + junk)
_VERSION = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.1 ", b""])
_HEADERS = st.lists(
    st.tuples(_TOKEN, _JUNK)
    | st.sampled_from(
        [
            (b"Host", b"x"),
            (b"Content-Length", b"5"),
            (b"Content-Length", b"-1"),
            (b"Content-Length", b"18446744073709551616"),
            (b"Content-Length", b"5, 6"),
            (b"Content-Length", b"\xb2"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Transfer-Encoding", b"gzip, chunked"),
            (b"Transfer-Encoding", b"chunked, identity"),
            (b"Connection", b"close"),
            (b"Connection", b"Upgrade"),
            (b"Upgrade", b"websocket"),
            (b"Upgrade", b"h2c"),
            (b"Expect", b"100-continue"),
            (b"Content-Type", b"application/json"),
            (b"X-Hub-Signature-256", b"sha256=00"),
        ]
    ),
    max_size=8,
)
_BODY = _JUNK | st.sampled_from(
    [
        b"",
        b"{}",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;a=b\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
        b"ffffffffffffffffff\r\n",
        b"-5\r\nhello\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]))
    parts = [b" ".join((draw(_METHOD), draw(_TARGET), draw(_VERSION))), end]
    for name, value in draw(_HEADERS):
        parts += [name, b": ", value, end]
    return b"".join((*parts, end, draw(_BODY)))


def answers(port: int, pieces: list[bytes]) -> list[int]:
    """The statuses that come back when the client has sent all, and hung up on its side."""
    with socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            received = b""
            while data := connection.recv(65536):
                received += data
        except OSError as error:
            if isinstance(error, ConnectionError) or error.errno == errno.ENOTCONN:
                return []  # closed on us before we had sent all
            raise
    return [int(line[9:12]) for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


async def test_no_garbage_is_a_fault_of_ours_or_ends_the_service(process: Process) -> None:
    @settings(
        max_examples=150,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(requests() | _JUNK, min_size=1, max_size=3), st.integers(1, 400))
    @example([b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", b"{}"], 10)
    @example([b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"], 10)
    def garbage(sent: list[bytes], size: int) -> None:
        whole = b"".join(sent)
        pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
        for listener in ("webhook", "api"):
            statuses = answers(process.ports[listener], pieces)
            assert all(status < 500 for status in statuses), statuses
            # The next client.
            next_one = answers(process.ports[listener], [b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n"])
            assert next_one == [404 if listener == "webhook" else 401]

    await asyncio.to_thread(garbage)
