"""Jobs and batches as they change, as Server-Sent Events (the HTML standard's section 9.2).

An event's id is where a client goes on when it comes back, to any replica: of all jobs, the
snapshot that showed the change; of one job, its last change; of a batch, its counts. Only the last
event of those read together has it, so that a client cut off among them gets all of them again, and
misses none.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.requests import Request
from starlette.types import Send

from hybridjobs.errors import FieldError, InvalidInput, Unavailable
from hybridjobs.ingress import members as checks
from hybridjobs.ingress import views
from hybridjobs.ingress.api.access import may_go_on
from hybridjobs.ingress.api.answers import BATCH
from hybridjobs.ingress.api.operations import Answer, Asked, operation
from hybridjobs.ingress.api.requests import Backend, id_in_path, not_found
from hybridjobs.ingress.asgi import respond, without_place
from hybridjobs.ingress.live import Feed, News, State, Watch
from hybridjobs.ingress.members import Check, Schema
from hybridjobs.ingress.problems import ClientGone
from hybridjobs.model import ApiScope, Status
from hybridjobs.store.batches import Batch, get_batch
from hybridjobs.store.changes import JobChange, JobState, Snapshot, job_states

HEARTBEAT_SECONDS = 15.0
RECONNECT_MS = 2000

_SEND_SECONDS = 10.0
_ACCESS_SECONDS = 5.0  # between looks for the end of the caller's token
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
            await _stream(asked.request, send, self._feed_events(feed, _Access(asked.request)))

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
        await self._follow(asked.request, send, "job", self._backend.live.job, _job, _job_event)

    @operation(
        "GET",
        "/api/batches/{id}/events",
        scope=ApiScope.READ,
        headers=_LAST_EVENT_ID,
        answers={
            200: Answer(
                "Events `batch`, each with the batch and its counts as they are after a change. "
                "The first comes at once; the stream ends after the one with `finished`.",
                BATCH,
                media_type="text/event-stream",
            ),
            204: Answer("The batch is finished, and Last-Event-ID was its last event."),
        },
    )
    async def of_batch(self, asked: Asked, send: Send) -> None:
        """Follow a batch until each of its jobs is over."""
        await self._follow(
            asked.request, send, "batch", self._backend.live.batch, get_batch, _batch_event
        )

    async def _follow(
        self,
        request: Request,
        send: Send,
        what: str,
        watching: Callable[[UUID], AbstractAsyncContextManager[Watch[State]]],
        read: Callable[[AsyncConnection[DictRow], UUID], Awaitable[State | None]],
        event: Callable[[State], ServerSentEvent],
    ) -> None:
        id_ = id_in_path(request, what)
        async with watching(id_) as watch:
            async with self._backend.database.connection() as connection:
                state = await read(connection, id_)
            if state is None:
                raise not_found(what, request)
            if state.finished and request.headers.get("last-event-id") == event(state).id:
                # What makes an EventSource stop coming back.
                await respond(send, 204)
                return
            watch.show(state)
            await _stream(request, send, _states(watch, event, _Access(request)))

    async def _feed_events(self, feed: Feed, access: "_Access") -> AsyncIterator[bytes]:
        yield ServerSentEvent(retry=RECONNECT_MS).encode()
        heartbeat = 0.0  # the first one says at once where the client is
        while not feed.cut and await access.holds():
            if feed.ready or self._clock() >= heartbeat:
                for news in feed.take():
                    for chunk in _chunks(news):
                        yield chunk
                        # A send alone does not wait: many chunks would hold up everybody else.
                        await asyncio.sleep(0)
                heartbeat = self._clock() + HEARTBEAT_SECONDS
            await feed.wait(min(heartbeat - self._clock(), _ACCESS_SECONDS))


async def _job(connection: AsyncConnection[DictRow], job_id: UUID) -> JobState | None:
    return (await job_states(connection, [job_id])).get(job_id)


async def _states(
    watch: Watch[State], event: Callable[[State], ServerSentEvent], access: "_Access"
) -> AsyncIterator[bytes]:
    yield ServerSentEvent(retry=RECONNECT_MS).encode()
    shown: State | None = None
    while not watch.cut and await access.holds():
        state = watch.state
        if state is not None and state != shown:
            yield event(state).encode()
            shown = state
        if watch.gone or (shown is not None and shown.finished):
            return
        await watch.moved(_ACCESS_SECONDS)


class _Access:
    """Whether the caller of a stream may still read: looked up now and then."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._clock = asyncio.get_running_loop().time
        self._look_at = self._clock() + _ACCESS_SECONDS

    async def holds(self) -> bool:
        """Whether it does; a caller who cannot be looked up comes back when that is possible."""
        if self._clock() < self._look_at:
            return True
        self._look_at = self._clock() + _ACCESS_SECONDS
        try:
            return await may_go_on(self._request.scope, ApiScope.READ)
        except Unavailable:
            return False


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


def _chunks(news: News) -> Iterator[bytes]:
    """The events of what was read together; without any, only how far that went."""
    id_ = str(news.snapshot)
    if news.missed:
        yield ServerSentEvent("{}", event="reset", id=id_, sep="\n").encode()
    elif not news.changes:
        yield ServerSentEvent(comment="", id=id_, sep="\n").encode()
    for start in range(0, len(news.changes), _CHUNK):
        events = [change.event for change in news.changes[start : start + _CHUNK]]
        if start + _CHUNK >= len(news.changes):
            events[-1] = b"id: %s\n%s" % (id_.encode(), events[-1])
        yield b"".join(events)


def _job_event(job: JobState) -> ServerSentEvent:
    return ServerSentEvent(views.change(job), event="job", id=job.changed_in, sep="\n")


def _batch_event(batch: Batch) -> ServerSentEvent:
    id_ = "-".join(str(batch.counts[status]) for status in Status)
    return ServerSentEvent(views.batch(batch).decode(), event="batch", id=id_, sep="\n")
