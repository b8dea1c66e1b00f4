"""The health listener of every process: liveness, readiness, metrics."""

import asyncio
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


def health_app(
    *, ready: Callable[[], bool], hangs: Callable[[], bool] = lambda: False
) -> Starlette:
    """`/healthz`: the loop runs, and not `hangs()`. `/readyz`: `ready()`. `/metrics`: Prometheus
    text."""

    async def healthz(_: Request) -> Response:
        if hangs():
            return PlainTextResponse("hangs\n", status_code=503)
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
