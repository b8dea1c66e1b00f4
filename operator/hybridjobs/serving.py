"""HTTP servers that are parts of a process, in its loop."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

KEEP_ALIVE_SECONDS = 75.0  # longer than the load balancers before us, so that they close first

GRACE_SECONDS = 20


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


def server(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    protocol: type[asyncio.Protocol] | Literal["httptools"] = "httptools",
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
) -> Server:
    """A server that accepts while `await server.serve()` runs."""
    return Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            loop="none",
            http=protocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=keep_alive_seconds,  # type: ignore[arg-type]  # call_later takes it
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
