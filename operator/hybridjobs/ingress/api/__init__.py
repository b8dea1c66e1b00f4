"""The API (:8081): everything about jobs and their queue, for callers with a token alone."""

from starlette.routing import Router

from hybridjobs.ingress.api import batches, callbacks, dead_letters, jobs, statistics, types
from hybridjobs.ingress.api.access import Access, ApiRoute
from hybridjobs.ingress.api.callers import callers_of
from hybridjobs.ingress.api.requests import Backend

__all__ = ["Access", "Backend", "api", "callers_of", "routes"]


def api(backend: Backend) -> Router:
    """The application behind Access; it raises what has no route."""
    return Router(routes(backend), redirect_slashes=False)


def routes(backend: Backend) -> list[ApiRoute]:
    """Every route of the API, each with the scope that it needs."""
    return [
        *jobs.routes(backend),
        *batches.routes(backend),
        *dead_letters.routes(backend),
        *callbacks.routes(backend),
        *types.routes(backend),
        *statistics.routes(backend),
    ]
