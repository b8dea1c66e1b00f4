"""CloudEvents 1.0: `POST /webhooks/cloudevents`, and the handshake that some senders begin with.

Authorization and handshake: https://github.com/cloudevents/spec, http-webhook.md, version 1.0.2.
"""

import hmac
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

from starlette.types import Receive, Scope, Send

from hybridjobs import codec
from hybridjobs.errors import FieldError, InvalidInput
from hybridjobs.ingress import metrics
from hybridjobs.ingress.asgi import Header, bearer_token, respond, traceparent
from hybridjobs.ingress.aside import aside
from hybridjobs.ingress.intake import Answer, Intake
from hybridjobs.ingress.problems import Refused
from hybridjobs.ingress.sources import event_format
from hybridjobs.ingress.sources.delivery import (
    Source,
    answer_accepted,
    answer_unmatched,
    check_own,
    counted,
    decoded,
    errors_of,
    event_of,
    form_field,
    header,
    jobs_of,
    not_configured,
    split_secrets,
)
from hybridjobs.ingress.sources.event_format import CloudEvent, Mode
from hybridjobs.ingress.submissions import Submission
from hybridjobs.model import JobType
from hybridjobs.payload import pointer
from hybridjobs.settings import IngressSettings, comma_separated
from hybridjobs.store.types import TypeCatalog

SOURCE = "cloudevents"

_ANY = "*"
_ORIGIN = re.compile(rb"[A-Za-z0-9*._:\[\]-]{1,253}")

Wanted = tuple[Sequence[JobType], Submission]


class CloudEvents(Source):
    """The endpoint: bounded, by token, one enqueue an event or a batch."""

    def __init__(self, settings: IngressSettings, catalog: TypeCatalog, intake: Intake) -> None:
        super().__init__(settings, catalog, intake)
        self._tokens = split_secrets(settings.cloudevents_token)
        self._origins = frozenset(comma_separated(settings.cloudevents_allowed_origins.lower()))
        self._others = settings.sources_beside(SOURCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept one request."""
        await counted(SOURCE, self._deliver(scope, receive, send, self._clock()))

    async def handshake(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Tell a sender, which asks by OPTIONS, whether its events are welcome here."""
        self._require_configuration()
        origin = header(dict(scope["headers"]), b"webhook-request-origin", _ORIGIN)
        if _ANY not in self._origins and origin.lower() not in self._origins:
            raise Refused(
                403,
                "Forbidden",
                "HYBRIDJOBS_CLOUDEVENTS_ALLOWED_ORIGINS does not name WebHook-Request-Origin",
            )
        allowed = _ANY if _ANY in self._origins else origin
        granted = [
            (b"allow", b"POST, OPTIONS"),
            (b"webhook-allowed-origin", allowed.encode()),
            (b"webhook-allowed-rate", _ANY.encode()),
        ]
        await respond(send, 200, headers=granted)

    async def _deliver(self, scope: Scope, receive: Receive, send: Send, arrived: float) -> str:
        self._require_configuration()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        authorize(headers, scope["query_string"], self._tokens)
        self._limit.take(SOURCE)
        mode = event_format.mode_of(headers.get(b"content-type", b""))
        body = await self._body(scope, receive)
        events = await aside(len(body), partial(events_of, mode, scope["headers"], body))
        trace = traceparent(headers)
        if mode == "batch":
            return await self._accept_batch(send, events, trace, arrived)
        [event] = events
        if isinstance(event, InvalidInput):
            raise event
        types = await self._types(event)
        if not types:
            return await answer_unmatched(send, SOURCE, event.type)
        answer = await self._intake.accept(
            types, event_of(SOURCE, key=event.key, payload=event.text, trace=trace, arrived=arrived)
        )
        return await answer_accepted(send, answer)

    def _require_configuration(self) -> None:
        if not self._tokens:
            raise not_configured("CloudEvents", "CLOUDEVENTS_TOKEN")

    async def _types(self, event: CloudEvent) -> Sequence[JobType]:
        """The types that want the event, which may not pretend to be another source's."""
        check_own(event.type, self._others, member="type")
        return await self._catalog.for_event(event.type)

    async def _accept_batch(
        self,
        send: Send,
        events: Sequence[CloudEvent | InvalidInput],
        trace: str | None,
        arrived: float,
    ) -> str:
        """All rows in one commit; an event that is refused holds up no other."""
        wanted = [await self._wanted(event, trace, arrived) for event in events]
        answers = iter(
            await self._intake.accept_all(
                [each for each in wanted if not isinstance(each, InvalidInput)]
            )
        )
        results = [each if isinstance(each, InvalidInput) else next(answers) for each in wanted]
        return await _answer_batch(send, events, results)

    async def _wanted(
        self, event: CloudEvent | InvalidInput, trace: str | None, arrived: float
    ) -> Wanted | InvalidInput:
        if isinstance(event, InvalidInput):
            return event
        try:
            types = await self._types(event)
        except InvalidInput as error:
            return error
        if not types:
            metrics.count_unmatched(SOURCE, event.type)
        return types, event_of(
            SOURCE,
            key=event.key,
            payload=event.text,
            trace=trace,
            arrived=arrived,
            budget_seconds=None,
        )


def authorize(headers: Mapping[bytes, bytes], query: bytes, tokens: Collection[bytes]) -> None:
    """Refused (401) unless header or query hold one of the tokens, as RFC 6750 puts it there."""
    given = _token(headers.get(b"authorization", b""), query)
    valid = False
    for token in tokens:
        valid |= hmac.compare_digest(token, given)
    if not valid:
        raise Refused(
            401,
            "Unauthorized",
            "send the token of CloudEvents: Authorization: Bearer …",
            headers={"WWW-Authenticate": 'Bearer realm="hybridjobs"'},
        )


def _token(authorization: bytes, query: bytes) -> bytes:
    token = bearer_token(authorization)
    return (form_field(query, b"access_token") or b"") if token is None else token


def events_of(
    mode: Mode, headers: Iterable[Header], body: bytes
) -> Sequence[CloudEvent | InvalidInput]:
    """The events of a request; those of a batch may be faults. InvalidInput for the rest."""
    if mode == "binary":
        return [event_format.binary(headers, body)]
    text = decoded(body)
    return event_format.batch(text) if mode == "batch" else [event_format.structured(text)]


async def _answer_batch(
    send: Send,
    events: Sequence[CloudEvent | InvalidInput],
    results: Sequence[Answer | InvalidInput],
) -> str:
    answers = [each for each in results if not isinstance(each, InvalidInput)]
    if results and not answers:
        raise InvalidInput("every event of the batch is refused", errors=_faults(results))
    entries = [_entry(event, result) for event, result in zip(events, results, strict=True)]
    made = [answer for answer in answers if answer.jobs]
    body = f'{{"events":[{",".join(entries)}]}}'
    await respond(send, 202 if made else 200, body.encode("utf-8", "replace"))
    if not made:
        return "unmatched"
    return "replayed" if all(answer.replayed for answer in made) else "accepted"


def _entry(event: CloudEvent | InvalidInput, result: Answer | InvalidInput) -> str:
    """What became of one event of a batch, as JSON text."""
    members = []
    if not isinstance(event, InvalidInput):
        members += [f'"source":{codec.dumps(event.source)}', f'"id":{codec.dumps(event.id)}']
    if isinstance(result, InvalidInput):
        errors = codec.dumps(errors_of(result.errors))
        members += [f'"detail":{codec.dumps(result.detail)}', f'"errors":{errors}']
    else:
        members.append(jobs_of(result, replayed=bool(result.jobs) and result.replayed))
    return f"{{{','.join(members)}}}"


def _faults(results: Sequence[Answer | InvalidInput]) -> list[FieldError]:
    return [
        FieldError(pointer(place) + each.path, each.message)
        for place, result in enumerate(results)
        if isinstance(result, InvalidInput)
        for each in result.errors or (FieldError("", result.detail),)
    ]
