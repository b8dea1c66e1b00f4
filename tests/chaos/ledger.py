"""What jobs' processes say of themselves, to a server on this machine that nothing here breaks."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hybridjobs.serving import server
from tests.waiting import eventually


@dataclass(frozen=True)
class Line:
    """A process (`run`, new for each) of an attempt began, or is about to exit with `exit`."""

    job: str
    attempt: int
    pod: str
    run: str
    event: str
    exit: int | None = None


@dataclass
class Ledger:
    """Every line once: a process sends again what it was not answered."""

    url: str = ""
    lines: dict[Line, None] = field(default_factory=dict)

    async def _write(self, request: Request) -> Response:
        self.lines.setdefault(Line(**json.loads(await request.body())))
        return Response(status_code=204)

    @property
    def app(self) -> Starlette:
        """The server's application."""
        return Starlette(routes=[Route("/", self._write, methods=["POST"])])


@asynccontextmanager
async def open_ledger(host: str) -> AsyncIterator[Ledger]:
    """A ledger that listens at that address of this machine."""
    ledger = Ledger()
    listening = server(ledger.app, host=host, port=0)
    task = asyncio.create_task(listening.serve())
    await eventually(lambda: listening.started)
    ledger.url = f"http://{host}:{listening.port}/"
    try:
        yield ledger
    finally:
        listening.should_exit = True
        await task
