"""GitHub's webhooks: `POST /webhooks/github`.

Signature, events and retries: https://docs.github.com/en/webhooks (validating deliveries; best
practices: answer within 10 seconds, use X-GitHub-Delivery to tell replays).
"""

import asyncio
import hmac
import re
from urllib.parse import parse_qs

import orjson
from pydantic import SecretStr
from starlette.types import Receive, Scope, Send

from hybridjobs.errors import HybridJobsError, InvalidInput
from hybridjobs.ingress.asgi import read_body, respond
from hybridjobs.ingress.intake import Intake, Submission
from hybridjobs.ingress.metrics import Metrics
from hybridjobs.ingress.problems import ClientGone, Refused
from hybridjobs.settings import IngressSettings
from hybridjobs.store.types import TypeCatalog

SOURCE = "github"
BUDGET_SECONDS = 7.0  # GitHub gives up after 10

_SIGNATURE = b"sha256="
_EVENT = re.compile(rb"[a-z0-9_]{1,64}")
_DELIVERY = re.compile(rb"[!-~]{1,255}")
_MISSING = b""


class GitHubWebhooks:
    """The endpoint: verified, bounded, one enqueue an event."""

    def __init__(
        self, settings: IngressSettings, catalog: TypeCatalog, intake: Intake, metrics: Metrics
    ) -> None:
        self._secrets = _split(settings.github_webhook_secret)
        self._max_body_bytes = settings.max_body_bytes
        self._body_timeout_seconds = settings.body_timeout_seconds
        self._catalog = catalog
        self._intake = intake
        self._metrics = metrics
        self._clock = asyncio.get_running_loop().time

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept one delivery."""
        arrived = self._clock()
        result = "failed"
        try:
            result = await self._deliver(scope, receive, send, arrived)
        except (InvalidInput, Refused, ClientGone):
            result = "refused"
            raise
        finally:
            self._metrics.webhook(SOURCE, result)

    async def _deliver(self, scope: Scope, receive: Receive, send: Send, arrived: float) -> str:
        if not self._secrets:
            raise Refused(
                503,
                "Not configured",
                "GitHub's webhooks are closed: set HYBRIDJOBS_GITHUB_WEBHOOK_SECRET",
            )
        headers = dict(scope["headers"])
        body = await read_body(
            scope,
            receive,
            limit_bytes=self._max_body_bytes,
            timeout_seconds=self._body_timeout_seconds,
        )
        self._verify(body, headers.get(b"x-hub-signature-256", _MISSING))
        event = _header(headers, b"x-github-event", _EVENT)
        delivery = _header(headers, b"x-github-delivery", _DELIVERY)
        text, document = _payload(body, headers.get(b"content-type", _MISSING))
        if event == "ping":
            await respond(send, 200, b'{"pong":true}')
            return "ping"
        action = document.get("action")
        names = [f"github/{event}"]
        if isinstance(action, str):
            names.append(f"github/{event}.{action}")
        types = await self._catalog.for_event(*names)
        if not types:
            self._metrics.unmatched(SOURCE, event)
            await respond(send, 204)
            return "unmatched"
        answer = await self._intake.accept(
            types,
            Submission(
                payload=text,
                source=SOURCE,
                key=delivery,
                submitted_by=SOURCE,
                traceparent=headers.get(b"traceparent"),
                arrived=arrived,
                budget_seconds=BUDGET_SECONDS,
            ),
        )
        await respond(send, answer.status, answer.body())
        return "replayed" if answer.replayed else "accepted"

    def _verify(self, body: bytes, signature: bytes) -> None:
        if not signature.startswith(_SIGNATURE):
            raise _unsigned("the header X-Hub-Signature-256 is missing or not sha256=…")
        given = signature[len(_SIGNATURE) :].lower()
        valid = False
        for secret in self._secrets:
            expected = hmac.digest(secret, body, "sha256").hex().encode()
            valid |= hmac.compare_digest(expected, given)
        if not valid:
            raise _unsigned("the signature does not fit the body and the configured secret")


def _split(secret: SecretStr | None) -> tuple[bytes, ...]:
    secrets = secret.get_secret_value().split(",") if secret else []
    return tuple(each.strip().encode() for each in secrets if each.strip())


def _unsigned(detail: str) -> Refused:
    return Refused(401, "Unauthorized", detail)


def _header(headers: dict[bytes, bytes], name: bytes, pattern: re.Pattern[bytes]) -> str:
    value = headers.get(name, _MISSING)
    if not pattern.fullmatch(value):
        raise InvalidInput(f"the header {name.decode().title()} is missing or wrong", status=400)
    return value.decode()


def _payload(body: bytes, content_type: bytes) -> tuple[str, dict[str, object]]:
    """The payload as it was sent, and parsed; InvalidInput (400) unless it is a JSON object."""
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type == b"application/x-www-form-urlencoded":
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=8)
        body = fields.get("payload", [""])[0].encode("utf-8", "replace")
    elif media_type != b"application/json":
        raise InvalidInput(
            "the content type must be application/json or application/x-www-form-urlencoded",
            status=415,
        )
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the payload is not JSON: {error.msg}", status=400) from None
    if not isinstance(document, dict):
        raise InvalidInput("the payload is not a JSON object", status=400)
    return body.decode(), document
