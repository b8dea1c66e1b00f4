"""Jobs as they change, as Server-Sent Events (the HTML standard's section 9.2).

An event's id is where a client goes on when it comes back, to any replica: of all jobs, the
snapshot that showed the change; of one job, its last change. Only the last event of those read
together has it, so that a client cut off among them gets all of them again, and misses none.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.requests import Request
from starlette.types import Send

from hybridjobs.errors import FieldError, InvalidInput, Unavailable
from hybridjobs.ingress import members as checks
from hybridjobs.ingress import views
from hybridjobs.ingress.api.access import may_go_on
from hybridjobs.ingress.api.operations import Answer, Asked, operation
from hybridjobs.ingress.api.requests import Backend, id_in_path, not_found
from hybridjobs.ingress.asgi import respond, without_place
from hybridjobs.ingress.live import Batch, Feed, Watch
from hybridjobs.ingress.members import Check, Schema
from hybridjobs.ingress.problems import ClientGone
from hybridjobs.model import ApiScope, Status
from hybridjobs.store.changes import JobChange, JobState, Snapshot, job_states

HEARTBEAT_SECONDS = 15.0
RECONNECT_MS = 2000

_SEND_SECONDS = 10.0
_LOOK_SECONDS = 0.5  # for the end of the process
_ACCESS_SECONDS = 5.0  # for the end of the caller's token
_CHUNK = 200
_FILTERS: dict[str, Check] = {"type": checks.text, "status": checks.some_of(tuple(Status))}
_LAST_EVENT_ID: dict[str, Schema] = {
    "Last-Event-ID": {
        "type": "string",
        "description": "The id of the last event that was read: go on after it.",
    }
}


class Events:
    """The operations."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._clock = asyncio.get_running_loop().time

    @operation(
        "GET",
        "/api/events",
        scope=ApiScope.READ,
        query=_FILTERS,
        headers=_LAST_EVENT_ID,
        answers={
            200: Answer(
                "Events `job`, each with a job as it is after a change, and `reset`: changes were "
                "left out, read the jobs anew.",
                JobChange,
                media_type="text/event-stream",
            )
        },
        problems={400: "Last-Event-ID is none of these events'."},
    )
    async def of_all(self, asked: Asked, send: Send) -> None:
        """Follow all jobs, or those of a type or status."""
        type_, statuses = asked.query.get("type"), asked.query.get("status")

        def wanted(change: JobChange) -> bool:
            return type_ in (None, change.type) and (not statuses or change.status in statuses)

        after = _after(asked.request)
        async with self._backend.live.feed(wanted, after) as feed:
            await _stream(asked.request, send, self._feed_events(feed, self._end(asked)))

    @operation(
        "GET",
        "/api/jobs/{id}/events",
        scope=ApiScope.READ,
        headers=_LAST_EVENT_ID,
        answers={
            200: Answer(
                "Events `job`, each with the job as it is after a change. The first comes at once; "
                "the stream ends after the one with a final status.",
                JobState,
                media_type="text/event-stream",
            ),
            204: Answer("The job is over, and Last-Event-ID was its last event."),
        },
    )
    async def of_job(self, asked: Asked, send: Send) -> None:
        """Follow a job, with its progress, until it is over."""
        job_id = id_in_path(asked.request, "job")
        async with self._backend.live.watch(job_id) as watch:
            async with self._backend.database.connection() as connection:
                state = (await job_states(connection, [job_id])).get(job_id)
            if state is None:
                raise not_found("job", asked.request)
            last = asked.request.headers.get("last-event-id")
            if state.status.is_terminal and last == state.changed_in:
                # What makes an EventSource stop coming back.
                await respond(send, 204)
                return
            watch.show(state)
            await _stream(asked.request, send, self._job_events(watch, self._end(asked)))

    def _end(self, asked: Asked) -> "_End":
        return _End(asked.request, self._backend.stopping)

    async def _feed_events(self, feed: Feed, end: "_End") -> AsyncIterator[bytes]:
        yield ServerSentEvent(retry=RECONNECT_MS).encode()
        heartbeat = 0.0  # the first one says at once where the client is
        while not feed.cut and not await end.has_come():
            if feed.ready or self._clock() >= heartbeat:
                for batch in feed.take():
                    for chunk in _chunks(batch):
                        yield chunk
                heartbeat = self._clock() + HEARTBEAT_SECONDS
            await feed.wait(_LOOK_SECONDS)

    async def _job_events(self, watch: Watch, end: "_End") -> AsyncIterator[bytes]:
        yield ServerSentEvent(retry=RECONNECT_MS).encode()
        shown: JobState | None = None
        while not await end.has_come():
            state = watch.state
            if state is not None and state != shown:
                yield _event(state, id_=state.changed_in)
                shown = state
            if watch.gone or (shown is not None and shown.status.is_terminal):
                return
            await watch.moved(_LOOK_SECONDS)


class _End:
    """When a stream ends that would go on: with the process, or with its caller's access."""

    def __init__(self, request: Request, stopping: asyncio.Event) -> None:
        self._request = request
        self._stopping = stopping
        self._clock = asyncio.get_running_loop().time
        self._look_at = self._clock() + _ACCESS_SECONDS

    async def has_come(self) -> bool:
        """Whether it has; whoever cannot be looked up comes back when that is possible again."""
        if self._stopping.is_set():
            return True
        if self._clock() < self._look_at:
            return False
        self._look_at = self._clock() + _ACCESS_SECONDS
        try:
            return not await may_go_on(self._request.scope, ApiScope.READ)
        except Unavailable:
            return True


async def _stream(request: Request, send: Send, events: AsyncIterator[bytes]) -> None:
    """Send the events; who reads too slowly is cut off, and comes back for the rest."""
    without_place(request.scope)
    response = EventSourceResponse(
        events, ping=HEARTBEAT_SECONDS, send_timeout=_SEND_SECONDS, sep="\n"
    )
    try:
        await response(request.scope, request.receive, send)
    except SendTimeoutError:
        raise ClientGone("the client does not read") from None


def _after(request: Request) -> Snapshot | None:
    given = request.headers.get("last-event-id")
    if not given:
        return None
    try:
        return Snapshot.parse(given)
    except ValueError:
        message = "must be the id of an event of this stream"
        errors = [FieldError("/Last-Event-ID", message)]
        raise InvalidInput(f"Last-Event-ID {message}", status=400, errors=errors) from None


def _chunks(batch: Batch) -> Iterator[bytes]:
    """The events of what was read together; without any, only how far that went."""
    id_ = str(batch.snapshot)
    if batch.missed:
        yield ServerSentEvent("{}", event="reset", id=id_, sep="\n").encode()
    elif not batch.changes:
        yield ServerSentEvent(comment="", id=id_, sep="\n").encode()
    last = len(batch.changes) - 1
    for start in range(0, len(batch.changes), _CHUNK):
        places = range(start, min(start + _CHUNK, last + 1))
        yield b"".join(
            _event(batch.changes[place], id_=id_ if place == last else None) for place in places
        )


def _event(job: JobChange, *, id_: str | None) -> bytes:
    return ServerSentEvent(views.change(job), event="job", id=id_, sep="\n").encode()
