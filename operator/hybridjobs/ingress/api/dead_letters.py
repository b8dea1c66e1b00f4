"""Dead letters: read them, run their jobs once more, close them with a note."""

from typing import Any

from starlette.requests import Request
from starlette.types import Send

from hybridjobs import codec
from hybridjobs.ingress import members as checks
from hybridjobs.ingress import views
from hybridjobs.ingress.api.access import ApiRoute, caller_of
from hybridjobs.ingress.api.requests import (
    PAGE_CHECKS,
    Backend,
    Page,
    id_in_path,
    not_found,
    read_object,
)
from hybridjobs.ingress.asgi import respond
from hybridjobs.ingress.members import Check, read_query
from hybridjobs.ingress.problems import Refused
from hybridjobs.model import ApiScope, ErrorCategory
from hybridjobs.store.dead_letters import (
    DeadLetter,
    DeadLetterFilter,
    get_dead_letter,
    list_dead_letters,
    redrive_dead_letter,
    redrive_dead_letters,
    resolve_dead_letter,
)

_MAX_REDRIVEN = 10_000
_FILTERS: dict[str, Check] = {
    "type": checks.text,
    "category": checks.one_of(tuple(ErrorCategory)),
    "since": checks.moment,
    "until": checks.moment,
}
_RESOLVED = {"true": True, "false": False, "any": None}
_LIST: dict[str, Check] = {
    **_FILTERS,
    **PAGE_CHECKS,
    "resolved": checks.one_of(tuple(_RESOLVED)),
}
_REDRIVE: dict[str, Check] = {
    **_FILTERS,
    "limit": checks.integer(1, _MAX_REDRIVEN),
    "perSecond": checks.number(0, 1000),
    "by": checks.text,
}


def routes(backend: Backend) -> list[ApiRoute]:
    """The endpoints."""
    endpoints = _DeadLetters(backend)
    return [
        ApiRoute(ApiScope.READ, "GET", "/api/dead-letters", endpoints.list),
        ApiRoute(ApiScope.OPERATE, "POST", "/api/dead-letters:redrive", endpoints.redrive_all),
        ApiRoute(ApiScope.READ, "GET", "/api/dead-letters/{id}", endpoints.get),
        ApiRoute(ApiScope.OPERATE, "POST", "/api/dead-letters/{id}/redrive", endpoints.redrive),
        ApiRoute(ApiScope.OPERATE, "POST", "/api/dead-letters/{id}/resolve", endpoints.resolve),
    ]


class _DeadLetters:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def list(self, request: Request, send: Send) -> None:
        query = read_query(request.query_params, _LIST)
        page = Page.taken_from(query)
        resolved = _RESOLVED[query.pop("resolved", "false")]
        async with self._backend.database.connection() as connection:
            found = await list_dead_letters(
                connection,
                _filter(query),
                limit=page.limit,
                resolved=resolved,
                before=page.before,
            )
        await respond(send, 200, views.listing("deadLetters", found, limit=page.limit))

    async def get(self, request: Request, send: Send) -> None:
        await respond(send, 200, views.dead_letter(await self._find(request)))

    async def redrive(self, request: Request, send: Send) -> None:
        asked = await read_object(request, {"by": checks.text}, shape="a redrive")
        letter = await self._find(request)
        async with self._backend.database.connection() as connection:
            job_id = await redrive_dead_letter(connection, letter.id, by=_by(asked, request))
        if job_id is None:
            raise _not_open(letter, "its job is in another state by now")
        self._backend.wake()
        await respond(send, 202, f'{{"id":"{letter.id}","jobId":"{job_id}"}}'.encode())

    async def redrive_all(self, request: Request, send: Send) -> None:
        asked = await read_object(request, _REDRIVE, shape="a redrive")
        async with self._backend.database.connection() as connection:
            jobs = await redrive_dead_letters(
                connection,
                _filter(asked),
                at_most=asked.get("limit", _MAX_REDRIVEN),
                per_second=asked.get("perSecond", 10.0),
                by=_by(asked, request),
            )
        self._backend.wake()
        answer = {"redriven": len(jobs), "jobs": [str(job_id) for job_id in jobs]}
        await respond(send, 202, codec.dumps(answer).encode())

    async def resolve(self, request: Request, send: Send) -> None:
        asked = await read_object(
            request, {"notes": checks.note, "by": checks.text}, shape="a resolution"
        )
        letter = await self._find(request)
        async with self._backend.database.connection() as connection:
            done = await resolve_dead_letter(
                connection, letter.id, notes=asked.get("notes", ""), by=_by(asked, request)
            )
        if not done:
            raise _not_open(letter, "it is resolved")
        await respond(send, 200, views.dead_letter(await self._find(request)))

    async def _find(self, request: Request) -> DeadLetter:
        async with self._backend.database.connection() as connection:
            letter = await get_dead_letter(connection, id_in_path(request, "dead letter"))
        if letter is None:
            raise not_found("dead letter", request)
        return letter


def _by(asked: dict[str, Any], request: Request) -> str:
    """For whom it is done: whom the request names, else the caller."""
    by: str = asked.get("by", caller_of(request.scope).name)
    return by


def _filter(values: dict[str, Any]) -> DeadLetterFilter:
    return DeadLetterFilter(**{name: values[name] for name in _FILTERS if name in values})


def _not_open(letter: DeadLetter, reason: str) -> Refused:
    if letter.resolved_at is not None:
        reason = f"it was resolved by {letter.resolved_by}: {letter.resolution_notes}"
    return Refused(409, "Already resolved", f"the dead letter is not open: {reason}")
