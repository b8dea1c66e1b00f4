"""What every source of webhooks shares: bounds, secrets, headers, JSON, answers, the counting."""

import asyncio
import re
from collections.abc import Awaitable, Collection, Mapping, Sequence
from urllib.parse import unquote_to_bytes

import orjson
from pydantic import SecretStr
from starlette.types import Receive, Scope, Send

from hybridjobs import codec
from hybridjobs.errors import FieldError, InvalidInput
from hybridjobs.ingress import metrics
from hybridjobs.ingress.asgi import read_body, respond
from hybridjobs.ingress.intake import Answer, Intake
from hybridjobs.ingress.limits import RateLimit
from hybridjobs.ingress.problems import ClientGone, Refused
from hybridjobs.ingress.submissions import Submission
from hybridjobs.payload import pointer
from hybridjobs.settings import IngressSettings, comma_separated
from hybridjobs.store.types import TypeCatalog

BUDGET_SECONDS = 8.0  # for quick types; senders that say how long they wait give 10 and more

_MAX_FIELDS = 16

# An identifier that a header carries: what can be seen of ASCII.
VISIBLE = re.compile(rb"[!-~]{1,255}")


class Source:
    """What an endpoint of webhooks works with."""

    def __init__(self, settings: IngressSettings, catalog: TypeCatalog, intake: Intake) -> None:
        self._max_body_bytes = settings.max_body_bytes
        self._limit = RateLimit(settings.webhook_requests_per_second)
        self._catalog = catalog
        self._intake = intake
        self._clock = asyncio.get_running_loop().time

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        return await read_body(scope, receive, limit_bytes=self._max_body_bytes)


async def counted(source: str, delivery: Awaitable[str]) -> None:
    """Await what becomes of a delivery, and count it."""
    result = "failed"
    try:
        result = await delivery
    except (InvalidInput, Refused, ClientGone):
        result = "refused"
        raise
    finally:
        metrics.count_webhook(source, result)


def not_configured(what: str, setting: str) -> Refused:
    """The endpoint is closed, and `setting` opens it."""
    return Refused(503, "Not configured", f"{what} are closed: set HYBRIDJOBS_{setting}")


def split_secrets(secret: SecretStr | None) -> tuple[bytes, ...]:
    """The secrets of a setting, which separates them by commas."""
    secrets = comma_separated(secret.get_secret_value()) if secret else []
    return tuple(each.encode() for each in secrets)


def header(headers: Mapping[bytes, bytes], name: bytes, pattern: re.Pattern[bytes]) -> str:
    """The header's value; InvalidInput (400) where it is not what `pattern` says."""
    value = headers.get(name, b"")
    if not pattern.fullmatch(value):
        raise InvalidInput(f"the header {name.decode().title()} is missing or wrong", status=400)
    return value.decode()


def form_field(form: bytes, name: bytes) -> bytes | None:
    """The first field of the name in a form or a query, to the byte; None: there is none.

    urllib's parse_qs makes text of it in between, which fails for bytes beyond ASCII.
    """
    for field in form.split(b"&", _MAX_FIELDS)[:_MAX_FIELDS]:
        key, _, value = field.partition(b"=")
        if key == name:
            return unquote_to_bytes(value.replace(b"+", b" "))
    return None


def parsed(payload: bytes | str) -> dict[str, object]:
    """InvalidInput (400) unless the payload is a JSON object."""
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the payload is not JSON: {error.msg}", status=400) from None
    if not isinstance(document, dict):
        raise InvalidInput("the payload is not a JSON object", status=400)
    return document


def text_of(payload: bytes) -> str:
    """The payload as the text that goes to Postgres, which finds out whether it is JSON."""
    if not payload.lstrip().startswith(b"{"):
        raise InvalidInput("the payload is not a JSON object", status=400)
    return decoded(payload)


def decoded(payload: bytes) -> str:
    """InvalidInput (400) for what is not UTF-8."""
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the payload is not UTF-8 at byte {error.start}", status=400) from None


def is_of(event: str, sources: Collection[str]) -> bool:
    """Whether an event's name begins with the name of one of the sources and a slash."""
    first, slash, _ = event.partition("/")
    return slash != "" and first in sources


def check_own(event: str, others: Collection[str], *, member: str) -> None:
    """InvalidInput (422) for an event that pretends to be another source's.

    `member` is where its name stood.
    """
    if is_of(event, others):
        message = f"names events of another source, {event.partition('/')[0]}"
        raise InvalidInput(f"the {member} {message}", errors=[FieldError(pointer(member), message)])


def event_of(
    source: str,
    *,
    key: str | None,
    payload: str,
    trace: str | None,
    arrived: float,
    budget_seconds: float | None = BUDGET_SECONDS,
    retries_failed: bool = False,
    inngest_event_id: str | None = None,
    inngest_run_id: str | None = None,
) -> Submission:
    """What a source's event submits to the types that want it; see Submission."""
    return Submission(
        payload=payload,
        source=source,
        key=key,
        submitted_by=source,
        traceparent=trace,
        inngest_event_id=inngest_event_id,
        inngest_run_id=inngest_run_id,
        arrived=arrived,
        budget_seconds=budget_seconds,
        is_event=True,
        retries_failed=retries_failed,
    )


async def answer_unmatched(send: Send, source: str, event: str) -> str:
    """No type wants the event."""
    metrics.count_unmatched(source, event)
    await respond(send, 204)
    return "unmatched"


async def answer_accepted(send: Send, answer: Answer) -> str:
    """The rows are durable."""
    replayed = answer.replayed
    body = f"{{{jobs_of(answer, replayed=replayed)}}}"
    await respond(send, 200 if answer.finished else 202, body.encode())
    return "retried" if answer.retried else "replayed" if replayed else "accepted"


def jobs_of(answer: Answer, *, replayed: bool) -> str:
    """The members that tell of an event's jobs, as JSON text."""
    text = f'"jobs":[{",".join(job.json() for job in answer.jobs)}]'
    if replayed:
        text += ',"replayed":true'
    if answer.retried:
        text += ',"retried":true'
    if answer.refused:
        refused = [
            {"type": name, "errors": errors_of(error.errors)} for name, error in answer.refused
        ]
        text += f',"refused":{codec.dumps(refused)}'
    return text


def errors_of(errors: Sequence[FieldError]) -> list[dict[str, str]]:
    """Faults as an answer shows them."""
    return [{"path": each.path, "message": each.message} for each in errors]
