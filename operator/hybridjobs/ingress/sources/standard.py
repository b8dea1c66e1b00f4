"""Standard Webhooks 1.0: `POST /webhooks/standard/{source}`, for every source that is configured.

Signature, ids and time limit: https://www.standardwebhooks.com ("Verifying webhook authenticity").
The signature covers the id, the time of sending, and the body as it was sent.
"""

import binascii
import hmac
import re
import time
from base64 import b64decode
from collections.abc import Mapping, Sequence

from pydantic import SecretStr
from starlette.types import Receive, Scope, Send

from hybridjobs.errors import ConfigurationError, FieldError, InvalidInput
from hybridjobs.ingress.asgi import traceparent
from hybridjobs.ingress.intake import Intake
from hybridjobs.ingress.problems import Refused
from hybridjobs.ingress.sources.delivery import (
    Source,
    answer_accepted,
    answer_unmatched,
    counted,
    event_of,
    header,
    not_configured,
    parsed,
    split_secrets,
    text_of,
)
from hybridjobs.settings import IngressSettings
from hybridjobs.standard_webhooks import signature_of
from hybridjobs.store.types import TypeCatalog

TOLERANCE_SECONDS = 300
MAX_TYPE_LENGTH = 190  # of an event; with its source's name it still fits into a type's `events`

# Dots separate what is signed: an id with one could be read as another id, time and body.
_ID = re.compile(rb"[!-\-/-~]{1,255}")
_TIMESTAMP = re.compile(rb"[0-9]{1,12}")
_SYMMETRIC = b"whsec_"
_ASYMMETRIC = (b"whpk_", b"whsk_")
_ASYMMETRIC_SCHEME = b"v1a"


class StandardWebhooks(Source):
    """The endpoint: bounded, verified, one enqueue an event.

    ConfigurationError for a secret that cannot be one.
    """

    def __init__(self, settings: IngressSettings, catalog: TypeCatalog, intake: Intake) -> None:
        super().__init__(settings, catalog, intake)
        self._keys = {
            source: signing_keys(source, secret)
            for source, secret in settings.standard_webhook_secrets.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept one message to the source that the path ends in."""
        arrived = self._clock()
        if not self._keys:
            raise not_configured("Standard Webhooks", "STANDARD_WEBHOOK_SECRETS")
        source = scope["path"].rpartition("/")[2]
        if source not in self._keys:
            raise Refused(
                404,
                "Not Found",
                "HYBRIDJOBS_STANDARD_WEBHOOK_SECRETS has no source of this name",
            )
        await counted(f"standard:{source}", self._deliver(source, scope, receive, send, arrived))

    async def _deliver(
        self, source: str, scope: Scope, receive: Receive, send: Send, arrived: float
    ) -> str:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        body = await self._body(scope, receive)
        message_id = verified_id(headers, body, self._keys[source], now=time.time())
        name = f"standard:{source}"
        self._limit.take(name)
        event = event_type(parsed(body))
        types = await self._catalog.for_event(f"{source}/{event}")
        if not types:
            return await answer_unmatched(send, name, event)
        submission = event_of(
            name,
            key=message_id,
            payload=text_of(body),
            trace=traceparent(headers),
            arrived=arrived,
        )
        del body  # the text is enough to hold
        return await answer_accepted(send, await self._intake.accept(types, submission))


def signing_keys(source: str, secret: SecretStr) -> tuple[bytes, ...]:
    """The keys of a source's secrets; ConfigurationError says what is wrong with one."""
    keys = tuple(_signing_key(source, each) for each in split_secrets(secret))
    if not keys:
        raise _wrong(source, "is empty")
    return keys


def _signing_key(source: str, secret: bytes) -> bytes:
    if secret.startswith(_ASYMMETRIC):
        raise _wrong(source, "is for asymmetric signatures; give one that begins with whsec_")
    if not secret.startswith(_SYMMETRIC):
        return secret
    encoded = secret.removeprefix(_SYMMETRIC)
    try:
        key = b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise _wrong(source, "begins with whsec_, but base64 does not follow")
    return key


def _wrong(source: str, fault: str) -> ConfigurationError:
    return ConfigurationError(
        f"settings: HYBRIDJOBS_STANDARD_WEBHOOK_SECRETS: the secret of {source} {fault}"
    )


def verified_id(
    headers: Mapping[bytes, bytes], body: bytes, keys: Sequence[bytes], *, now: float
) -> str:
    """The message's id, if one of its signatures is by one of the keys and it was sent just now.

    `now` in Unix seconds. InvalidInput (400) for an id or time that is missing or no such thing,
    Refused (401) for the rest.
    """
    prefix = _prefix(headers)
    message_id = header(headers, prefix + b"id", _ID)
    timestamp = header(headers, prefix + b"timestamp", _TIMESTAMP)
    signatures = headers.get(prefix + b"signature", b"").split(b" ")
    valid = False
    for key in keys:
        expected = signature_of(message_id, timestamp, body, key)
        for signature in signatures:
            valid |= hmac.compare_digest(expected, signature)
    if not valid:
        raise _unauthorized(f"{_title(prefix)}Signature {_fault_of(signatures)}")
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        raise _unauthorized(
            f"{_title(prefix)}Timestamp is more than {TOLERANCE_SECONDS} s from our clock"
        )
    return message_id


def _fault_of(signatures: Sequence[bytes]) -> str:
    schemes = {
        scheme for each in signatures for scheme, comma, _ in [each.partition(b",")] if comma
    }
    if schemes == {_ASYMMETRIC_SCHEME}:
        return "is asymmetric (v1a) only: this takes symmetric ones (v1), by a shared secret"
    return "is missing, or does not fit this body and our secret"


def _prefix(headers: Mapping[bytes, bytes]) -> bytes:
    """Svix, on which many senders build, has names of its own for the same three headers."""
    if b"svix-id" in headers and b"webhook-id" not in headers:
        return b"svix-"
    return b"webhook-"


def _title(prefix: bytes) -> str:
    return prefix.decode().title()


def _unauthorized(detail: str) -> Refused:
    return Refused(401, "Unauthorized", detail)


def event_type(document: Mapping[str, object]) -> str:
    """The body's `type`; InvalidInput (422) where it can name no event."""
    found = document.get("type")
    if (
        isinstance(found, str)
        and 0 < len(found) <= MAX_TYPE_LENGTH
        and found.isprintable()
        and " " not in found
    ):
        return found
    message = f"must be a string of 1 to {MAX_TYPE_LENGTH} characters without spaces"
    raise InvalidInput(f"the member `type` {message}", errors=[FieldError("/type", message)])
