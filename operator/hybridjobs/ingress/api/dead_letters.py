"""Dead letters: read them, run their jobs once more, close them with a note."""

from typing import Any

from starlette.types import Send

from hybridjobs import codec
from hybridjobs.ingress import members as checks
from hybridjobs.ingress import views
from hybridjobs.ingress.api.answers import COUNT, ID
from hybridjobs.ingress.api.operations import Answer, Asked, operation
from hybridjobs.ingress.api.requests import (
    PAGE_CHECKS,
    Backend,
    Page,
    id_in_path,
    not_found,
)
from hybridjobs.ingress.api.schemas import Listing, exactly
from hybridjobs.ingress.asgi import respond
from hybridjobs.ingress.members import Check, Shape
from hybridjobs.ingress.problems import Refused
from hybridjobs.model import ApiScope, ErrorCategory
from hybridjobs.store.dead_letters import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterSummary,
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
_BY: dict[str, Check] = {"by": checks.text}
_REDRIVE = Shape("a redrive", _BY)
_REDRIVE_ALL = Shape(
    "a redrive",
    {
        **_FILTERS,
        **_BY,
        "limit": checks.integer(1, _MAX_REDRIVEN),
        "perSecond": checks.number(0, 1000),
    },
)
_RESOLUTION = Shape("a resolution", {**_BY, "notes": checks.note})
_RESOLVED_ALREADY = {409: "The dead letter is resolved."}


class DeadLetters:
    """The operations."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @operation(
        "GET",
        "/api/dead-letters",
        scope=ApiScope.READ,
        query=_LIST,
        answers={
            200: Answer(
                "A page, the newest first.",
                Listing("deadLetters", DeadLetterSummary),
                links=(
                    "get-dead-letters-id",
                    "post-dead-letters-id-redrive",
                    "post-dead-letters-id-resolve",
                ),
                links_by="deadLetters/0/id",
            )
        },
    )
    async def list(self, asked: Asked, send: Send) -> None:
        """What failed for good."""
        query = asked.query
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

    @operation(
        "POST",
        "/api/dead-letters:redrive",
        scope=ApiScope.OPERATE,
        body=_REDRIVE_ALL,
        answers={
            202: Answer(
                "The jobs that run once more.",
                exactly({"redriven": COUNT, "jobs": {"type": "array", "items": ID}}),
            )
        },
    )
    async def redrive_all(self, asked: Asked, send: Send) -> None:
        """Run the jobs of all unresolved dead letters that match once more."""
        body = asked.body
        async with self._backend.database.connection() as connection:
            jobs = await redrive_dead_letters(
                connection,
                _filter(body),
                at_most=body.get("limit", _MAX_REDRIVEN),
                per_second=body.get("perSecond", 10.0),
                by=asked.by,
            )
        self._backend.wake()
        answer = {"redriven": len(jobs), "jobs": [str(job_id) for job_id in jobs]}
        await respond(send, 202, codec.dumps(answer).encode())

    @operation(
        "GET",
        "/api/dead-letters/{id}",
        scope=ApiScope.READ,
        answers={200: Answer("The dead letter.", DeadLetter)},
    )
    async def get(self, asked: Asked, send: Send) -> None:
        """A dead letter with its payload and history."""
        await respond(send, 200, views.dead_letter(await self._find(asked)))

    @operation(
        "POST",
        "/api/dead-letters/{id}/redrive",
        scope=ApiScope.OPERATE,
        body=_REDRIVE,
        answers={202: Answer("Its job runs once more.", exactly({"id": ID, "jobId": ID}))},
        problems=_RESOLVED_ALREADY,
    )
    async def redrive(self, asked: Asked, send: Send) -> None:
        """Run a dead letter's job once more."""
        letter = await self._find(asked)
        async with self._backend.database.connection() as connection:
            job_id = await redrive_dead_letter(connection, letter.id, by=asked.by)
        if job_id is None:
            raise _not_open(letter, "its job is in another state by now")
        self._backend.wake()
        await respond(send, 202, f'{{"id":"{letter.id}","jobId":"{job_id}"}}'.encode())

    @operation(
        "POST",
        "/api/dead-letters/{id}/resolve",
        scope=ApiScope.OPERATE,
        body=_RESOLUTION,
        answers={200: Answer("The dead letter.", DeadLetter)},
        problems=_RESOLVED_ALREADY,
    )
    async def resolve(self, asked: Asked, send: Send) -> None:
        """Close a dead letter without another run."""
        letter = await self._find(asked)
        notes = asked.body.get("notes", "")
        async with self._backend.database.connection() as connection:
            done = await resolve_dead_letter(connection, letter.id, notes=notes, by=asked.by)
        if not done:
            raise _not_open(letter, "it is resolved")
        await respond(send, 200, views.dead_letter(await self._find(asked)))

    async def _find(self, asked: Asked) -> DeadLetter:
        async with self._backend.database.connection() as connection:
            letter = await get_dead_letter(connection, id_in_path(asked.request, "dead letter"))
        if letter is None:
            raise not_found("dead letter", asked.request)
        return letter


def _filter(values: dict[str, Any]) -> DeadLetterFilter:
    return DeadLetterFilter(**{name: values[name] for name in _FILTERS if name in values})


def _not_open(letter: DeadLetter, reason: str) -> Refused:
    if letter.resolved_at is not None:
        reason = f"it was resolved by {letter.resolved_by}: {letter.resolution_notes}"
    return Refused(409, "Already resolved", f"the dead letter is not open: {reason}")
