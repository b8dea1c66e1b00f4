"""The health listener of every process: liveness, readiness, metrics; and servers in our loop."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp


class Server(uvicorn.Server):
    """A uvicorn server that is one part of a process, which handles signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    @property
    def port(self) -> int:
        """The port bound, once `started`; also where 0 was asked for."""
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port


def health_app(*, ready: Callable[[], bool]) -> Starlette:
    """`/healthz`: the loop runs. `/readyz`: `ready()`. `/metrics`: Prometheus text."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        if ready():
            return PlainTextResponse("ok\n")
        return PlainTextResponse("not ready\n", status_code=503)

    async def metrics(_: Request) -> Response:
        text = await asyncio.to_thread(generate_latest)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ]
    )


def server(app: ASGIApp, *, host: str, port: int) -> Server:
    """A server with this project's settings; run it by `await server.serve()`."""
    return Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
        )
    )
