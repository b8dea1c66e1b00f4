"""The API (:8081): everything about jobs and their queue, for callers with a token alone."""

from typing import Any

from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from hybridjobs import codec
from hybridjobs.ingress.api import (
    batches,
    callbacks,
    dead_letters,
    events,
    jobs,
    process,
    statistics,
    types,
)
from hybridjobs.ingress.api.access import Access, ApiRoute
from hybridjobs.ingress.api.callers import callers_of
from hybridjobs.ingress.api.document import document
from hybridjobs.ingress.api.operations import routes_of
from hybridjobs.ingress.api.requests import Backend, PodLog
from hybridjobs.ingress.asgi import Application, nothing_here, respond
from hybridjobs.model import ApiScope

__all__ = ["Access", "Backend", "PodLog", "api", "callers_of", "openapi", "routes"]

_ENDPOINTS = (
    jobs.Jobs,
    batches.Batches,
    process.Process,
    events.Events,
    dead_letters.DeadLetters,
    callbacks.Callbacks,
    types.Types,
    statistics.Statistics,
)


def openapi() -> dict[str, Any]:
    """The OpenAPI document of the API."""
    return document(_ENDPOINTS)


def api(backend: Backend) -> Router:
    """The application behind Access."""
    return Router(routes(backend), redirect_slashes=False, default=Application(nothing_here))


def routes(backend: Backend) -> list[ApiRoute]:
    """Every route of the API, each with the scopes that it needs."""
    described = codec.dumps(openapi()).encode()

    async def serve(_: Scope, __: Receive, send: Send) -> None:
        await respond(send, 200, described)

    return [
        *routes_of(each(backend) for each in _ENDPOINTS),
        ApiRoute("/openapi.json", {"GET": (ApiScope.READ, serve)}),
    ]
