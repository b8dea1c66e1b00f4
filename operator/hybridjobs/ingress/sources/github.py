"""GitHub's webhooks: `POST /webhooks/github`.

Signature, events and time limit: https://docs.github.com/en/webhooks ("Validating webhook
deliveries", "Best practices"). The signature covers the body, so everything else waits for it.
"""

import hmac
import re
from collections.abc import Collection
from functools import partial

from starlette.types import Receive, Scope, Send

from hybridjobs.errors import InvalidInput
from hybridjobs.ingress.asgi import respond, traceparent
from hybridjobs.ingress.aside import aside
from hybridjobs.ingress.intake import Intake
from hybridjobs.ingress.problems import Refused
from hybridjobs.ingress.sources.delivery import (
    VISIBLE,
    Source,
    answer_accepted,
    answer_unmatched,
    counted,
    event_of,
    form_field,
    header,
    not_configured,
    parsed,
    split_secrets,
    text_of,
)
from hybridjobs.settings import IngressSettings
from hybridjobs.store.types import TypeCatalog

SOURCE = "github"
BUDGET_SECONDS = 7.0  # GitHub gives up after 10

_SIGNATURE = b"sha256="
_EVENT = re.compile(rb"[a-z0-9_]{1,64}")
_FORM = b"application/x-www-form-urlencoded"
# How GitHub writes every event that has an action. Anything else is parsed.
_ACTION_FIRST = re.compile(rb'\{"action":"([a-z0-9_]{1,64})"[,}]')


class GitHubWebhooks(Source):
    """The endpoint: bounded, verified, one enqueue an event."""

    def __init__(self, settings: IngressSettings, catalog: TypeCatalog, intake: Intake) -> None:
        super().__init__(settings, catalog, intake)
        self._secrets = split_secrets(settings.github_webhook_secret)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept one delivery."""
        await counted(SOURCE, self._deliver(scope, receive, send, self._clock()))

    async def _deliver(self, scope: Scope, receive: Receive, send: Send, arrived: float) -> str:
        if not self._secrets:
            raise not_configured("GitHub's webhooks", "GITHUB_WEBHOOK_SECRET")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        body = await self._body(scope, receive)
        verify(body, headers.get(b"x-hub-signature-256", b""), self._secrets)
        # Behind the signature, so that what strangers send is not counted against GitHub.
        self._limit.take(SOURCE)
        event = header(headers, b"x-github-event", _EVENT)
        delivery = header(headers, b"x-github-delivery", VISIBLE)
        kind = headers.get(b"content-type", b"")
        payload = await aside(len(body), partial(_payload, body, kind))
        if event == "ping":
            parsed(payload)
            await respond(send, 200, b'{"pong":true}')
            return "ping"
        types = await self._catalog.for_event(*_names(event, payload))
        if not types:
            parsed(payload)
            return await answer_unmatched(send, SOURCE, event)
        submission = event_of(
            SOURCE,
            key=delivery,
            payload=text_of(payload),
            trace=traceparent(headers),
            arrived=arrived,
            budget_seconds=BUDGET_SECONDS,
            retries_failed=True,
        )
        del body, payload  # the text is enough to hold, up to 25 MiB of it
        try:
            answer = await self._intake.accept(types, submission)
        except InvalidInput:
            parsed(submission.payload)  # says better what is wrong, where it is the JSON
            raise
        return await answer_accepted(send, answer)


def verify(body: bytes, signature: bytes, secrets: Collection[bytes]) -> None:
    """Refused (401) unless the signature is the body's, by one of the secrets."""
    valid = False
    for secret in secrets:
        expected = hmac.digest(secret, body, "sha256").hex().encode()
        valid |= hmac.compare_digest(_SIGNATURE + expected, signature)
    if not valid:
        raise Refused(
            401,
            "Unauthorized",
            "X-Hub-Signature-256 is missing, or does not fit this body and our secret",
        )


def _payload(body: bytes, content_type: bytes) -> bytes:
    """The JSON as it was sent, by either content type that GitHub offers."""
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type == b"application/json":
        return body
    if media_type != _FORM:
        raise InvalidInput(
            f"the content type must be application/json or {_FORM.decode()}", status=415
        )
    payload = form_field(body, b"payload")
    if payload is None:
        raise InvalidInput("the form has no field `payload`", status=400)
    return payload


def _names(event: str, payload: bytes) -> tuple[str, ...]:
    """The event's names in a type's `events`: for every action, and with its own.

    To parse a delivery costs more than to verify it, and Postgres parses it anyway; so only what
    is not written as GitHub writes it is parsed here.
    """
    if found := _ACTION_FIRST.match(payload):
        return f"github/{event}", f"github/{event}.{found[1].decode()}"
    if b'"action"' in payload:
        action = parsed(payload).get("action")
        if isinstance(action, str):
            return f"github/{event}", f"github/{event}.{action}"
    return (f"github/{event}",)
