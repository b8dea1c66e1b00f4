"""The listeners of the ingress: servers for strangers, bound before they serve."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence

from starlette.types import ASGIApp

from hybridjobs.errors import ConfigurationError
from hybridjobs.ingress.protocol import bounded
from hybridjobs.serving import KEEP_ALIVE_SECONDS, Server, server
from hybridjobs.settings import IngressSettings

_BACKLOG = 2048


def webhook_server(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    request_timeout_seconds: float,
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    max_connections: int = 2000,
) -> Server:
    """A listener for strangers; see BoundedProtocol for what it bears."""
    return server(
        app,
        host=host,
        port=port,
        protocol=bounded(request_timeout_seconds, max_connections=max_connections),
        keep_alive_seconds=keep_alive_seconds,
    )


def listener_of(app: ASGIApp, settings: IngressSettings, port: int) -> Server:
    """The server of a listener, as configured."""
    return webhook_server(
        app,
        host=settings.bind,
        port=port,
        request_timeout_seconds=settings.body_timeout_seconds,
        keep_alive_seconds=settings.keep_alive_seconds,
        max_connections=settings.max_connections,
    )


@contextlib.asynccontextmanager
async def listening(servers: Sequence[Server]) -> AsyncIterator[None]:
    """The servers accept inside; on leaving they finish the requests in flight."""
    sockets = [_bound(each.config.host, each.config.port) for each in servers]
    tasks = [
        asyncio.create_task(each.serve(sockets=[socket]))
        for each, socket in zip(servers, sockets, strict=True)
    ]
    try:
        await _started(servers, tasks)
        yield
    finally:
        for each in servers:
            each.should_exit = True
        await asyncio.gather(*tasks)


async def _started(servers: Sequence[Server], tasks: Sequence[asyncio.Task[None]]) -> None:
    while not all(each.started for each in servers):
        if any(task.done() for task in tasks):
            return
        await asyncio.sleep(0.01)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}, port {port}: {error}") from error
