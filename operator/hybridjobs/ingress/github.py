"""GitHub's webhooks: `POST /webhooks/github`.

Signature, events and time limit: https://docs.github.com/en/webhooks ("Validating webhook
deliveries", "Best practices"). The signature covers the body, so everything else waits for it.
"""

import asyncio
import hmac
import re
from urllib.parse import parse_qs

import orjson
from pydantic import SecretStr
from starlette.types import Receive, Scope, Send

from hybridjobs import codec
from hybridjobs.errors import InvalidInput
from hybridjobs.ingress import metrics
from hybridjobs.ingress.asgi import read_body, respond, traceparent
from hybridjobs.ingress.intake import Answer, Intake
from hybridjobs.ingress.problems import ClientGone, Refused
from hybridjobs.ingress.submissions import Submission
from hybridjobs.settings import IngressSettings
from hybridjobs.store.types import TypeCatalog

SOURCE = "github"
BUDGET_SECONDS = 7.0  # GitHub gives up after 10

_SIGNATURE = b"sha256="
_EVENT = re.compile(rb"[a-z0-9_]{1,64}")
_DELIVERY = re.compile(rb"[!-~]{1,255}")
_FORM = b"application/x-www-form-urlencoded"
# How GitHub writes every event that has an action. Anything else is parsed.
_ACTION_FIRST = re.compile(rb'\{"action":"([a-z0-9_]{1,64})"[,}]')


class GitHubWebhooks:
    """The endpoint: bounded, verified, one enqueue an event."""

    def __init__(self, settings: IngressSettings, catalog: TypeCatalog, intake: Intake) -> None:
        self._secrets = _split(settings.github_webhook_secret)
        self._max_body_bytes = settings.max_body_bytes
        self._catalog = catalog
        self._intake = intake
        self._clock = asyncio.get_running_loop().time

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept one delivery."""
        result = "failed"
        try:
            result = await self._deliver(scope, receive, send, self._clock())
        except (InvalidInput, Refused, ClientGone):
            result = "refused"
            raise
        finally:
            metrics.count_webhook(SOURCE, result)

    async def _deliver(self, scope: Scope, receive: Receive, send: Send, arrived: float) -> str:
        if not self._secrets:
            raise Refused(
                503,
                "Not configured",
                "GitHub's webhooks are closed: set HYBRIDJOBS_GITHUB_WEBHOOK_SECRET",
            )
        headers: dict[bytes, bytes] = dict(scope["headers"])
        body = await read_body(scope, receive, limit_bytes=self._max_body_bytes)
        self._verify(body, headers.get(b"x-hub-signature-256", b""))
        event = _header(headers, b"x-github-event", _EVENT)
        delivery = _header(headers, b"x-github-delivery", _DELIVERY)
        payload = _payload(body, headers.get(b"content-type", b""))
        if event == "ping":
            _parsed(payload)
            await respond(send, 200, b'{"pong":true}')
            return "ping"
        types = await self._catalog.for_event(*_names(event, payload))
        if not types:
            _parsed(payload)
            metrics.count_unmatched(SOURCE, event)
            await respond(send, 204)
            return "unmatched"
        submission = Submission(
            payload=_text(payload),
            source=SOURCE,
            key=delivery,
            submitted_by=SOURCE,
            traceparent=traceparent(headers),
            arrived=arrived,
            budget_seconds=BUDGET_SECONDS,
            retries_failed=True,
        )
        try:
            answer = await self._intake.accept(types, submission)
        except InvalidInput:
            _parsed(payload)  # says better what is wrong, where it is the JSON
            raise
        replayed = answer.replayed
        await respond(send, 200 if answer.finished else 202, _body(answer, replayed=replayed))
        return "retried" if answer.retried else "replayed" if replayed else "accepted"

    def _verify(self, body: bytes, signature: bytes) -> None:
        valid = False
        for secret in self._secrets:
            expected = hmac.digest(secret, body, "sha256").hex().encode()
            valid |= hmac.compare_digest(_SIGNATURE + expected, signature)
        if not valid:
            raise Refused(
                401,
                "Unauthorized",
                "X-Hub-Signature-256 is missing, or does not fit this body and our secret",
            )


def _split(secret: SecretStr | None) -> tuple[bytes, ...]:
    secrets = secret.get_secret_value().split(",") if secret else []
    return tuple(each.strip().encode() for each in secrets if each.strip())


def _header(headers: dict[bytes, bytes], name: bytes, pattern: re.Pattern[bytes]) -> str:
    value = headers.get(name, b"")
    if not pattern.fullmatch(value):
        raise InvalidInput(f"the header {name.decode().title()} is missing or wrong", status=400)
    return value.decode()


def _payload(body: bytes, content_type: bytes) -> bytes:
    """The JSON as it was sent, by either content type that GitHub offers."""
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type == b"application/json":
        return body
    if media_type != _FORM:
        raise InvalidInput(
            f"the content type must be application/json or {_FORM.decode()}", status=415
        )
    try:
        return parse_qs(body, max_num_fields=8)[b"payload"][0]
    except (KeyError, ValueError):
        raise InvalidInput("the form has no field `payload`", status=400) from None


def _names(event: str, payload: bytes) -> tuple[str, ...]:
    """The event's names in a type's `events`: for every action, and with its own.

    To parse a delivery costs more than to verify it, and Postgres parses it anyway; so only what
    is not written as GitHub writes it is parsed here.
    """
    if found := _ACTION_FIRST.match(payload):
        return f"github/{event}", f"github/{event}.{found[1].decode()}"
    if b'"action"' in payload:
        action = _parsed(payload).get("action")
        if isinstance(action, str):
            return f"github/{event}", f"github/{event}.{action}"
    return (f"github/{event}",)


def _parsed(payload: bytes) -> dict[str, object]:
    """InvalidInput (400) unless the payload is a JSON object."""
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the payload is not JSON: {error.msg}", status=400) from None
    if not isinstance(document, dict):
        raise InvalidInput("the payload is not a JSON object", status=400)
    return document


def _text(payload: bytes) -> str:
    """The payload as the text that goes to Postgres, which finds out whether it is JSON."""
    if not payload.lstrip().startswith(b"{"):
        raise InvalidInput("the payload is not a JSON object", status=400)
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the payload is not UTF-8 at byte {error.start}", status=400) from None


def _body(answer: Answer, *, replayed: bool) -> bytes:
    text = f'{{"jobs":[{",".join(job.json() for job in answer.jobs)}]'
    if replayed:
        text += ',"replayed":true'
    if answer.retried:
        text += ',"retried":true'
    if answer.refused:
        refused = [
            {
                "type": name,
                "errors": [{"path": each.path, "message": each.message} for each in error.errors],
            }
            for name, error in answer.refused
        ]
        text += f',"refused":{codec.dumps(refused)}'
    return f"{text}}}".encode()
