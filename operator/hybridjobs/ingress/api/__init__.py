"""The API (:8081): everything about jobs and their queue. Closed until it has a token."""

from typing import Any

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from hybridjobs import codec
from hybridjobs.ingress.api import (
    batches,
    dead_letters,
    events,
    jobs,
    process,
    statistics,
    types,
)
from hybridjobs.ingress.api.access import BearerToken
from hybridjobs.ingress.api.document import document
from hybridjobs.ingress.api.operations import routes_of
from hybridjobs.ingress.api.requests import Backend, PodLog
from hybridjobs.ingress.asgi import Application, respond

__all__ = ["Backend", "BearerToken", "PodLog", "api", "openapi"]

_ENDPOINTS = (
    jobs.Jobs,
    batches.Batches,
    process.Process,
    events.Events,
    dead_letters.DeadLetters,
    types.Types,
    statistics.Statistics,
)


def openapi() -> dict[str, Any]:
    """The OpenAPI document of the API."""
    return document(_ENDPOINTS)


def api(backend: Backend) -> ASGIApp:
    """The application; it raises what has no route."""
    described = codec.dumps(openapi()).encode()

    async def serve(_: Scope, __: Receive, send: Send) -> None:
        await respond(send, 200, described)

    return Router(
        [
            *routes_of(each(backend) for each in _ENDPOINTS),
            Route("/openapi.json", Application(serve), methods=["GET"]),
        ],
        redirect_slashes=False,
    )
