"""A receiver of callbacks: a real HTTP or HTTPS server that behaves as a test wants it to."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from svix.webhooks import Webhook

from hybridjobs import codec
from tests.waiting import eventually


@dataclass(frozen=True)
class Message:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return codec.loads(self.body)

    def verify(self, secret: str) -> None:
        """By a library that is not ours; raises WebhookVerificationError."""
        Webhook(secret).verify(self.body, self.headers)


Behave = Callable[[Message, asyncio.StreamWriter], Awaitable[None]]


def answers(
    status: int, body: bytes = b"", *, headers: tuple[str, ...] = (), after: float = 0
) -> Behave:
    async def behave(_: Message, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(after)
        lines = [
            f"HTTP/1.1 {status} Whatever",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *headers,
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()

    return behave


async def hangs_up(_: Message, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def never_answers(_: Message, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(600)


async def floods(_: Message, writer: asyncio.StreamWriter) -> None:
    """A body without an end."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        await writer.drain()


async def endless_headers(_: Message, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


async def endless_hints(_: Message, writer: asyncio.StreamWriter) -> None:
    """Answers before the answer, which never comes."""
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def no_http(_: Message, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\xff no HTTP at all\r\n\r\n")
    await writer.drain()


async def drips(_: Message, writer: asyncio.StreamWriter) -> None:
    """The status at once, and then a body of a byte a second."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(1)


@dataclass
class Receiver:
    """What came, and what is done about the next ones: each in turn, the last one for ever."""

    behaviours: list[Behave] = field(default_factory=lambda: [answers(200)])
    messages: list[Message] = field(default_factory=list)
    host: str = "127.0.0.1"
    port: int = 0
    scheme: str = "http"
    open: int = 0
    most_open: int = 0

    def url(self, path: str = "/done", *, host: str | None = None) -> str:
        return f"{self.scheme}://{host or self.host}:{self.port}{path}"

    async def received(self, count: int = 1) -> list[Message]:
        await eventually(lambda: len(self.messages) >= count)
        return self.messages

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {
                    name.lower(): value
                    for name, _, value in (line.partition(": ") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers["content-length"]))
                message = Message(head[0].split(" ")[1], headers, body)
                self.messages.append(message)
                place = min(len(self.messages), len(self.behaviours)) - 1
                await self.behaviours[place](message, writer)
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def receiving(
    *behaviours: Behave, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Receiver]:
    receiver = Receiver(host=host)
    if behaviours:
        receiver.behaviours = list(behaviours)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(receiver._serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, host, 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    receiver.scheme = "https" if tls else "http"
    try:
        yield receiver
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
