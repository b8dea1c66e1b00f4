"""The API (:8081): everything about jobs and their queue. Closed until it has a token."""

from starlette.routing import Router
from starlette.types import ASGIApp

from hybridjobs.ingress.api import batches, callbacks, dead_letters, jobs, statistics, types
from hybridjobs.ingress.api.access import BearerToken
from hybridjobs.ingress.api.requests import Backend

__all__ = ["Backend", "BearerToken", "api"]


def api(backend: Backend) -> ASGIApp:
    """The application; it raises what has no route."""
    return Router(
        [
            *jobs.routes(backend),
            *batches.routes(backend),
            *dead_letters.routes(backend),
            *callbacks.routes(backend),
            *types.routes(backend),
            *statistics.routes(backend),
        ],
        redirect_slashes=False,
    )
