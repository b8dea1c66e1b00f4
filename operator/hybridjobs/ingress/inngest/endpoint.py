"""`/api/inngest`: what is verified before the SDK sees it, and what is not the SDK's at all."""

import asyncio
from time import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from hybridjobs.errors import InvalidInput
from hybridjobs.ingress.asgi import read_body, respond, traceparent
from hybridjobs.ingress.inngest import signature
from hybridjobs.ingress.inngest.config import InngestConfig
from hybridjobs.ingress.inngest.events import PlainEvent
from hybridjobs.ingress.inngest.room import Room
from hybridjobs.ingress.intake import Intake
from hybridjobs.ingress.limits import RateLimit
from hybridjobs.ingress.problems import Refused
from hybridjobs.ingress.sources.delivery import (
    answer_accepted,
    answer_unmatched,
    check_own,
    counted,
    event_of,
    not_configured,
)
from hybridjobs.store.inngest import SOURCE
from hybridjobs.store.types import TypeCatalog

if TYPE_CHECKING:
    from hybridjobs.ingress.inngest.app import InngestApp

MAX_BODY_BYTES = 4 * 1024 * 1024  # Inngest's own limit for its requests
_SIGNATURE = b"x-inngest-signature"


async def closed(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """The endpoint where Inngest is not configured."""
    await counted(SOURCE, _refuse())


async def _refuse() -> str:
    raise not_configured("Inngest's functions", "INNGEST_SIGNING_KEY")


class InngestEndpoint:
    """The endpoint: bounded, verified; calls go to the SDK, plain events to the intake."""

    def __init__(
        self, config: InngestConfig, app: "InngestApp", catalog: TypeCatalog, intake: Intake
    ) -> None:
        self._config = config
        self._limit = RateLimit(config.requests_per_second)
        self._room = Room()
        self._app = app
        self._catalog = catalog
        self._intake = intake
        self._clock = asyncio.get_running_loop().time

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await counted(SOURCE, self._serve(scope, receive, send, self._clock()))

    async def _serve(self, scope: Scope, receive: Receive, send: Send, arrived: float) -> str:
        method = scope["method"]
        body = await read_body(scope, receive, limit_bytes=MAX_BODY_BYTES)
        self._verify(scope, body)
        self._limit.take(SOURCE)
        if method == "POST" and not _is_call(scope["query_string"]):
            return await self._deliver(scope, body, send, arrived)
        if method == "PUT" and self._config.serve_origin is None and not self._config.dev:
            # It would be taken from the Host header, which is anybody's to choose.
            raise Refused(
                503,
                "Not configured",
                "the app cannot be synced: set HYBRIDJOBS_INNGEST_SERVE_ORIGIN to the origin at"
                " which Inngest reaches this listener, such as https://hooks.example.com",
            )
        await self._app.follow(self._catalog.all())
        async with self._room.take(len(body)):
            reply = await self._app.answer(scope, body)
        await respond(send, reply.status, reply.body, headers=reply.headers)
        return {"GET": "introspected", "PUT": "synced"}.get(method, "called")

    def _verify(self, scope: Scope, body: bytes) -> None:
        if self._config.dev:
            return
        given = [value for name, value in scope["headers"] if name == _SIGNATURE]
        fault = signature.fault(given, body, self._config.secrets, now=time())
        if fault is not None:
            raise Refused(401, "Unauthorized", f"X-Inngest-Signature {fault}")

    async def _deliver(self, scope: Scope, body: bytes, send: Send, arrived: float) -> str:
        """An event of a plain sender becomes jobs, as a webhook does."""
        event = PlainEvent.parse(body)
        check_own(event.name, self._config.others, member="name")
        types = await self._catalog.for_event(event.name)
        if not types:
            return await answer_unmatched(send, SOURCE, event.name)
        submission = event_of(
            SOURCE,
            key=event.id,
            payload=event.data,
            trace=traceparent(dict(scope["headers"])),
            arrived=arrived,
            inngest_event_id=event.id,
        )
        return await answer_accepted(send, await self._intake.accept(types, submission))


def _is_call(query: bytes) -> bool:
    """Whether a request is Inngest's: a call of a function, or its probe."""
    try:
        names = parse_qs(query, max_num_fields=16)
    except ValueError:
        raise InvalidInput("the query has too many fields", status=400) from None
    return b"fnId" in names or b"probe" in names
