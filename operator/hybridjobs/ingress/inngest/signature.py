"""Inngest's signatures, within a window of time.

`X-Inngest-Signature: t=<unix seconds>&s=<hex>`, where s is HMAC-SHA256 over the body followed by t
(SDK_SPEC.md 4.1.3 in Inngest's repository). The SDK checks neither the time nor that there is one,
so that a captured request would be good for ever; this does, and over the body as it was sent: to
bring it into canonical form, as the SDK does, is dear, and not for strangers to ask for.
"""

import hmac
import re
from collections.abc import Iterable, Sequence

from hybridjobs.errors import ConfigurationError

WINDOW_SECONDS = 300

_PREFIX = re.compile(r"^signkey-\w+-")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")
_TIME, _DIGEST = rb"t=(?P<t>[0-9]{1,12})", rb"s=(?P<s>[0-9a-f]{64})"
_HEADERS = (re.compile(_TIME + b"&" + _DIGEST), re.compile(_DIGEST + b"&" + _TIME))


def secret_of(key: str, *, variable: str) -> bytes:
    """What signs with a signing key: the key without its prefix, as text.

    ConfigurationError, which names the variable, unless it is hexadecimal, as the SDK needs it.
    """
    secret = _PREFIX.sub("", key)
    if not _HEX.fullmatch(secret):
        raise ConfigurationError(
            f"{variable} is no signing key: it must be signkey-, an environment, - and an even"
            " number of hexadecimal digits"
        )
    return secret.encode()


def sign(secret: bytes, body: bytes, *, now: float) -> str:
    """The header's value for a body."""
    moment = str(int(now)).encode()
    return f"t={moment.decode()}&s={_digest(secret, body, moment).decode()}"


def fault(
    headers: Sequence[bytes], body: bytes, secrets: Iterable[bytes], *, now: float
) -> str | None:
    """What is wrong with a request's signature headers; None: one of the secrets made it, lately.

    `now` is in unix seconds. Takes the same time whichever secret fits, and if none does.
    """
    if len(headers) != 1:
        return "must be there once"
    found = next(filter(None, (each.fullmatch(headers[0]) for each in _HEADERS)), None)
    if found is None:
        return "must be t=<unix seconds>&s=<64 hexadecimal digits>"
    fits = False
    for secret in secrets:
        fits |= hmac.compare_digest(_digest(secret, body, found["t"]), found["s"])
    if not fits:
        return "does not fit this body and our signing key"
    if abs(now - int(found["t"])) > WINDOW_SECONDS:
        return f"is more than {WINDOW_SECONDS} seconds from our time"
    return None


def _digest(secret: bytes, body: bytes, moment: bytes) -> bytes:
    return hmac.digest(secret, body + moment, "sha256").hex().encode()
