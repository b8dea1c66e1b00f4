"""The recorded API on a real socket, in the tests' own event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import uvicorn

from tests.recorded.paths import DATA, require
from tests.recorded.server import Endpoint, GitHub, application, load


@dataclass(frozen=True)
class RecordedApi:
    """Where it is, and the GitHub behind it, to be changed by tests."""

    url: str
    github: GitHub


class _Server(uvicorn.Server):
    """Says when it listens, and leaves the signals to the tests."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def recorded_api(
    more: Mapping[tuple[str, str], Endpoint] | None = None,
) -> AsyncIterator[RecordedApi]:
    """The API until the end of the block, with `more` endpoints by method and path."""
    app = application(load(require(DATA)), more)
    server = _Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    await server.listening.wait()
    port = server.servers[0].sockets[0].getsockname()[1]
    yield RecordedApi(f"http://127.0.0.1:{port}", app.state.github)
    server.should_exit = True
    await serving
