"""Job types and schedules as they stand, and the switches that stop what would start."""

from starlette.requests import Request
from starlette.types import Send

from hybridjobs.errors import UnknownType
from hybridjobs.ingress import members as checks
from hybridjobs.ingress import views
from hybridjobs.ingress.api.access import ApiRoute, caller_of
from hybridjobs.ingress.api.requests import Backend, read_object
from hybridjobs.ingress.asgi import respond
from hybridjobs.ingress.problems import Refused
from hybridjobs.model import ApiScope
from hybridjobs.store import queue


def routes(backend: Backend) -> list[ApiRoute]:
    """The endpoints."""
    endpoints = _Types(backend)
    return [
        ApiRoute(ApiScope.READ, "GET", "/api/types", endpoints.list),
        ApiRoute(ApiScope.OPERATE, "POST", "/api/types/{type:path}/pause", endpoints.pause),
        ApiRoute(ApiScope.OPERATE, "POST", "/api/types/{type:path}/resume", endpoints.resume),
        ApiRoute(ApiScope.OPERATE, "POST", "/api/queue/pause", endpoints.pause_all),
        ApiRoute(ApiScope.OPERATE, "POST", "/api/queue/resume", endpoints.resume_all),
        ApiRoute(ApiScope.READ, "GET", "/api/schedules", endpoints.schedules),
    ]


class _Types:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def list(self, _: Request, send: Send) -> None:
        await self._answer(send)

    async def pause(self, request: Request, send: Send) -> None:
        by = await _who(request)
        async with self._backend.database.connection() as connection:
            known = await queue.pause_type(connection, request.path_params["type"], by=by)
        await self._answer_for(known, request, send)

    async def resume(self, request: Request, send: Send) -> None:
        async with self._backend.database.connection() as connection:
            known = await queue.resume_type(connection, request.path_params["type"])
        self._backend.wake()
        await self._answer_for(known, request, send)

    async def pause_all(self, request: Request, send: Send) -> None:
        by = await _who(request)
        async with self._backend.database.connection() as connection:
            await queue.pause_queue(connection, by=by)
        await self._answer(send)

    async def resume_all(self, _: Request, send: Send) -> None:
        async with self._backend.database.connection() as connection:
            await queue.resume_queue(connection)
        self._backend.wake()
        await self._answer(send)

    async def schedules(self, _: Request, send: Send) -> None:
        async with self._backend.database.connection() as connection:
            found = await queue.schedule_lines(connection)
        await respond(send, 200, views.schedules(found))

    async def _answer_for(self, known: bool, request: Request, send: Send) -> None:
        if not known:
            raise _no_such_type(request.path_params["type"], self._backend.catalog.known())
        await self._answer(send)

    async def _answer(self, send: Send) -> None:
        """The types as they are now; this replica knows them so from now on."""
        await self._backend.catalog.refresh()
        async with self._backend.database.connection() as connection:
            pause = await queue.queue_pause(connection)
            lines = await queue.type_lines(connection)
        await respond(send, 200, views.types(self._backend.catalog.all(), lines, pause))


async def _who(request: Request) -> str:
    asked = await read_object(request, {"by": checks.text}, shape="a pause")
    by: str = asked.get("by", caller_of(request.scope).name)
    return by


def _no_such_type(name: str, known: list[str]) -> Refused:
    return Refused(404, "Not Found", str(UnknownType(name[:80], known)))
