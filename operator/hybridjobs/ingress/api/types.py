"""Job types and schedules as they stand, and the switches that stop what would start."""

from starlette.types import Send

from hybridjobs.errors import UnknownType
from hybridjobs.ingress import members as checks
from hybridjobs.ingress import views
from hybridjobs.ingress.api.answers import COUNT, PAUSED, TEXT
from hybridjobs.ingress.api.operations import Answer, Asked, operation
from hybridjobs.ingress.api.requests import Backend
from hybridjobs.ingress.api.schemas import exactly
from hybridjobs.ingress.asgi import respond
from hybridjobs.ingress.members import Shape
from hybridjobs.ingress.problems import Refused
from hybridjobs.model import ApiScope
from hybridjobs.store import queue

_PAUSE = Shape("a pause", {"by": checks.text})
_TYPE = exactly(
    {
        "type": TEXT,
        "name": TEXT,
        "mode": {"enum": ["quick", "long"]},
        "events": {"type": "array", "items": TEXT},
        **PAUSED,
        "waiting": COUNT,
        "running": COUNT,
    }
)
_TYPES = {
    200: Answer(
        "The types, and the switch of the whole queue.",
        exactly({"types": {"type": "array", "items": _TYPE}, "queue": exactly(PAUSED)}),
        links=("post-types-type-pause", "post-types-type-resume"),
        links_by="types/0/type",
    )
}
_SCHEDULES = exactly({"schedules": list[queue.ScheduleLine]})


class Types:
    """The operations."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @operation("GET", "/api/types", scope=ApiScope.READ, answers=_TYPES)
    async def list(self, _: Asked, send: Send) -> None:
        """The job types, and what waits and runs of each."""
        await self._answer(send)

    @operation(
        "POST",
        "/api/types/{type:path}/pause",
        scope=ApiScope.OPERATE,
        body=_PAUSE,
        answers=_TYPES,
    )
    async def pause(self, asked: Asked, send: Send) -> None:
        """Start no more jobs of a type; what runs goes on."""
        type_ = asked.request.path_params["type"]
        async with self._backend.database.connection() as connection:
            known = await queue.pause_type(connection, type_, by=asked.by)
        await self._answer_for(known, asked, send)

    @operation("POST", "/api/types/{type:path}/resume", scope=ApiScope.OPERATE, answers=_TYPES)
    async def resume(self, asked: Asked, send: Send) -> None:
        """Start jobs of a type again."""
        async with self._backend.database.connection() as connection:
            known = await queue.resume_type(connection, asked.request.path_params["type"])
        self._backend.wake()
        await self._answer_for(known, asked, send)

    @operation("POST", "/api/queue/pause", scope=ApiScope.OPERATE, body=_PAUSE, answers=_TYPES)
    async def pause_all(self, asked: Asked, send: Send) -> None:
        """Start no more jobs of any type; what runs goes on."""
        async with self._backend.database.connection() as connection:
            await queue.pause_queue(connection, by=asked.by)
        await self._answer(send)

    @operation("POST", "/api/queue/resume", scope=ApiScope.OPERATE, answers=_TYPES)
    async def resume_all(self, _: Asked, send: Send) -> None:
        """Start jobs again."""
        async with self._backend.database.connection() as connection:
            await queue.resume_queue(connection)
        self._backend.wake()
        await self._answer(send)

    @operation(
        "GET",
        "/api/schedules",
        scope=ApiScope.READ,
        answers={200: Answer("The last decided tick of each.", _SCHEDULES)},
    )
    async def schedules(self, _: Asked, send: Send) -> None:
        """The schedules that have had a tick."""
        async with self._backend.database.connection() as connection:
            found = await queue.schedule_lines(connection)
        await respond(send, 200, views.schedules(found))

    async def _answer_for(self, known: bool, asked: Asked, send: Send) -> None:
        if not known:
            raise _no_such_type(asked.request.path_params["type"], self._backend.catalog.known())
        await self._answer(send)

    async def _answer(self, send: Send) -> None:
        """The types as they are now; this replica knows them so from now on."""
        await self._backend.catalog.refresh()
        async with self._backend.database.connection() as connection:
            pause = await queue.queue_pause(connection)
            lines = await queue.type_lines(connection)
        await respond(send, 200, views.types(self._backend.catalog.all(), lines, pause))


def _no_such_type(name: str, known: list[str]) -> Refused:
    return Refused(404, "Not Found", str(UnknownType(name[:80], known)))
