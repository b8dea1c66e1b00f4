"""Requests that are slow, endless or broken, on raw sockets."""

import asyncio
import gc
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from hybridjobs.ingress import protocol
from hybridjobs.ingress.protocol import MAX_HEAD_BYTES
from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.ingress.conftest import SECRET, Running, running
from tests.recorded import Delivery, signed_headers
from tests.waiting import eventually

HEAD = b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture
async def bounded(database_urls: DatabaseUrls) -> AsyncIterator[Running]:
    async with running(database_urls.service, inline_children=0, max_body_bytes=10_000) as ingress:
        yield ingress


@pytest.fixture
async def hasty(database_urls: DatabaseUrls) -> AsyncIterator[Running]:
    """One that waits for no request longer than half a second."""
    async with running(
        database_urls.service, inline_children=0, body_timeout_seconds=0.5
    ) as ingress:
        yield ingress


@asynccontextmanager
async def connected(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def status_of(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(30):
        line = await reader.readline()
    return int(line.split()[1])


def signed(body: bytes) -> bytes:
    headers = signed_headers(SECRET, Delivery("pull_request", body, 0))
    return b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())


async def test_a_kept_connection_is_served_once_more_when_the_process_ends(
    bounded: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_IDLE_AT_END_SECONDS", 15.0)
    request = b"GET /webhooks/github HTTP/1.1\r\nHost: x\r\n\r\n"
    async with connected(bounded.ports.webhooks) as (reader, writer):
        writer.write(request)
        assert b"connection: close" not in await reader.readuntil(b"\r\n\r\n")
        bounded.stop.set()
        await _refused(bounded.ports.webhooks)
        await reader.read(1000)  # the first answer's body
        writer.write(request)
        answer = await reader.read()  # to the connection's end
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"connection: close" in answer


async def test_an_idle_connection_does_not_hold_up_the_end(bounded: Running) -> None:
    async with connected(bounded.ports.webhooks) as (reader, _):
        bounded.stop.set()
        assert await reader.read() == b""
        await bounded.task


async def _refused(port: int) -> None:
    async def is_refused() -> bool:
        try:
            async with connected(port):
                return False
        except ConnectionError:
            return True

    await eventually(is_refused)


async def test_a_request_is_gone_with_its_answer(bounded: Running) -> None:
    """Not when a collection finds it: until then it would hold its body."""
    body = b"{}"
    request = HEAD + signed(body) + b"Content-Length: 2\r\n\r\n" + body
    gc.collect()
    gc.disable()
    try:
        async with connected(bounded.ports.webhooks) as (reader, writer):
            for _ in range(5):
                writer.write(request)
                answer = await reader.readuntil(b"\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 204")
            alive = [each for each in gc.get_objects() if type(each) is RequestResponseCycle]
    finally:
        gc.enable()
    assert len(alive) <= 1, "the connection has its last one"


@pytest.mark.parametrize("sent", [b"", b"{", b'{"action":'])
async def test_a_body_that_stops_is_answered_408_and_closed(hasty: Running, sent: bytes) -> None:
    async with connected(hasty.ports.webhooks) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 100\r\n\r\n" + sent)
        assert await status_of(reader) == 408
        rest = await reader.read()
        assert b"application/problem+json" in rest


async def test_a_body_that_drips_is_bounded_as_a_whole(hasty: Running) -> None:
    async with connected(hasty.ports.webhooks) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 1000\r\n\r\n")
        answer = asyncio.create_task(status_of(reader))
        for _ in range(50):
            if answer.done():
                break
            writer.write(b" ")
            await asyncio.sleep(0.1)
        assert await answer == 408


async def test_a_head_that_drips_is_bounded_too(hasty: Running) -> None:
    async with connected(hasty.ports.webhooks) as (reader, writer):
        writer.write(HEAD)
        answer = asyncio.create_task(status_of(reader))
        for number in range(50):
            if answer.done():
                break
            writer.write(b"X-%d: x\r\n" % number)
            await asyncio.sleep(0.1)
        assert await answer == 408


async def test_silence_is_hung_up_on(hasty: Running) -> None:
    async with connected(hasty.ports.webhooks) as (reader, _), asyncio.timeout(30):
        assert await reader.read() == b""


async def test_a_second_request_on_the_connection_has_its_own_time(hasty: Running) -> None:
    async with connected(hasty.ports.webhooks) as (reader, writer):
        for _ in range(3):
            writer.write(HEAD + b"Content-Length: 2\r\n\r\n{}")
            assert await status_of(reader) == 401
            await reader.readuntil(b"}")
            await asyncio.sleep(0.4)
        writer.write(HEAD + b"Content-Length: 2\r\n\r\n{")
        assert await status_of(reader) == 408


async def test_an_endless_head_is_refused(bounded: Running) -> None:
    async with connected(bounded.ports.webhooks) as (reader, writer):
        writer.write(HEAD + b"X-Long: " + b"x" * (MAX_HEAD_BYTES + 1))
        assert await status_of(reader) == 431


async def test_a_body_over_the_limit_is_refused_before_it_comes(bounded: Running) -> None:
    async with connected(bounded.ports.webhooks) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 10001\r\n\r\n")
        assert await status_of(reader) == 413


@pytest.mark.parametrize("framing", [b"Content-Length: 8388608", b"Transfer-Encoding: chunked"])
async def test_who_sends_all_of_a_body_over_the_limit_reads_why_it_is_refused(
    bounded: Running, framing: bytes
) -> None:
    chunk = b" " * 65536
    if framing.startswith(b"Transfer"):
        chunk = b"10000\r\n" + chunk + b"\r\n"
    async with connected(bounded.ports.webhooks) as (reader, writer), asyncio.timeout(30):
        writer.write(HEAD + framing + b"\r\n\r\n")
        for _ in range(128):
            writer.write(chunk)
            await writer.drain()
        assert await status_of(reader) == 413
        assert b"over the limit of 10000 bytes" in await reader.read()


async def test_a_chunked_body_over_the_limit_is_refused_in_its_middle(bounded: Running) -> None:
    async with connected(bounded.ports.webhooks) as (reader, writer):
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            writer.write(b"1000\r\n" + b" " * 4096 + b"\r\n")
        assert await status_of(reader) == 413


async def test_a_body_in_pieces_is_accepted(bounded: Running) -> None:
    await bounded.register(job_type(events=["github/pull_request.opened"]))
    body = b'{"action":"opened"}'
    async with connected(bounded.ports.webhooks) as (reader, writer):
        writer.write(b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\n" + signed(body))
        writer.write(b"Content-Length: %d\r\n\r\n" % len(body))
        for position in range(len(body)):
            writer.write(body[position : position + 1])
            await asyncio.sleep(0.01)
        assert await status_of(reader) == 202


@pytest.mark.parametrize("pause", [0, 0.05])
@pytest.mark.parametrize("framing", [b"Content-Length: 19", b"Transfer-Encoding: chunked"])
async def test_an_offer_of_another_protocol_is_passed_over(
    bounded: Running, framing: bytes, pause: float
) -> None:
    await bounded.register(job_type(events=["github/pull_request.opened"]))
    body = b'{"action":"opened"}'
    sent = b"13\r\n" + body + b"\r\n0\r\n\r\n" if b"chunked" in framing else body
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    head = b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\n" + signed(body) + offer
    async with connected(bounded.ports.webhooks) as (reader, writer):
        for _ in range(2):
            writer.write(head + framing + b"\r\n\r\n")
            if pause:
                await writer.drain()
                await asyncio.sleep(pause)
            writer.write(sent)
        # Each in its turn; what is in a body is no request.
        for _ in range(2):
            assert await status_of(reader) == 202
            fields = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: ([0-9]+)", fields)
            assert length is not None
            assert b'"type":"test/long"' in await reader.readexactly(int(length[1]))
    assert await bounded.count() == 1


@pytest.mark.parametrize("offer", [b"", b"Connection: upgrade\r\nUpgrade: x\r\n"])
async def test_many_requests_at_once_are_no_large_head(bounded: Running, offer: bytes) -> None:
    ask = b"GET /nothing HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n"
    async with connected(bounded.ports.webhooks) as (reader, writer):
        writer.write(ask * 2000)
        async with asyncio.timeout(20):
            text = b""
            while text.count(b"HTTP/1.1 404") < 2000:
                chunk = await reader.read(65536)
                assert chunk
                text += chunk


async def test_a_client_that_hangs_up_in_its_body_harms_nobody(bounded: Running) -> None:
    async with connected(bounded.ports.webhooks) as (_, writer):
        writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
        await writer.drain()
    assert (await bounded.webhooks.get("/")).status_code == 404


async def test_what_is_no_http_is_refused(bounded: Running) -> None:
    async with connected(bounded.ports.webhooks) as (reader, writer):
        writer.write(b"\x16\x03\x01 what is this\r\n\r\n")
        assert await status_of(reader) == 400


async def test_a_stop_finishes_the_request_in_flight(bounded: Running) -> None:
    await bounded.register(job_type(events=["github/pull_request.opened"]))
    body = b'{"action":"opened"}'
    async with connected(bounded.ports.webhooks) as (reader, writer):
        writer.write(b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\n" + signed(body))
        writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body[:5])
        await writer.drain()
        await asyncio.sleep(0.1)
        bounded.stop.set()
        await asyncio.sleep(0.2)
        writer.write(body[5:])
        assert await status_of(reader) == 202
    await bounded.task
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", bounded.ports.webhooks)
