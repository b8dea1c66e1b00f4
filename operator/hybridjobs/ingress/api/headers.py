"""Request headers that say how to answer: `Prefer` (RFC 7240) and `Idempotency-Key`.

`Idempotency-Key` is draft-ietf-httpapi-idempotency-key-header: a structured-field string
(RFC 9651); bare words are taken too, since many clients send those.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hybridjobs.errors import FieldError, InvalidInput
from hybridjobs.ingress.members import MAX_TEXT_LENGTH, Schema

_QUOTED_KEY = rf'"((?:[ !#-\[\]-~]|\\["\\]){{1,{MAX_TEXT_LENGTH}}})"'
_BARE_KEY = rf"[!#$%&'*+.^_`|~0-9A-Za-z:/=@-]{{1,{MAX_TEXT_LENGTH}}}"
KEY_HEADER: dict[str, Schema] = {
    "Idempotency-Key": {
        "type": "string",
        "pattern": f"^({_QUOTED_KEY}|{_BARE_KEY})$",
        "description": "The same key and body give the same answer, another body 422.",
        "example": '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
    }
}
PREFER_HEADER: dict[str, Schema] = {
    "Prefer": {
        "type": "string",
        "description": "RFC 7240: `respond-async`, or `wait=` seconds.",
        "example": "wait=10",
    }
}
PREFERENCE_APPLIED: dict[str, Schema] = {"Preference-Applied": {"type": "string"}}

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's, no secret
_QUOTED = r'"(?:[^"\\]|\\.)*"'
# No space is given back: between semicolons it could be either one's, in so many ways.
_PREFERENCE = re.compile(
    rf"({_TOKEN})(?:[ \t]*+=[ \t]*+({_TOKEN}|{_QUOTED}))?"
    rf"(?:[ \t]*+;[ \t]*+(?:{_TOKEN}(?:[ \t]*+=[ \t]*+(?:{_TOKEN}|{_QUOTED}))?)?)*[ \t]*+(?:,|$)"
)
_WAIT = re.compile(r"[0-9]{1,9}")
_KEY = re.compile(f"{_QUOTED_KEY}|{_BARE_KEY}")


@dataclass(frozen=True, slots=True)
class Preference:
    """How long the caller waits for an outcome, in seconds; None: it has not said."""

    wait_seconds: float | None = None
    applied: str | None = None

    @classmethod
    def read(cls, values: Sequence[str], *, at_most: float) -> "Preference":
        """From the header's lines; what is not understood is left out, as RFC 7240 asks."""
        found = _preferences(", ".join(values))
        wait = found.get("wait", "")
        if _WAIT.fullmatch(wait):
            seconds = min(float(wait), at_most)
            return cls(seconds, f"wait={seconds:g}")
        if "respond-async" in found:
            return cls(0.0, "respond-async")
        return cls()

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What the answer says of it."""
        return ((b"preference-applied", self.applied.encode()),) if self.applied else ()


def _preferences(text: str) -> dict[str, str]:
    """Each preference by its name, the first of the same name counts."""
    found: dict[str, str] = {}
    position = 0
    text = text.strip(" \t,")
    while match := _PREFERENCE.match(text, position):
        found.setdefault(match[1].lower(), (match[2] or "").strip('"'))
        position = match.end()
        while text[position : position + 1] in (" ", "\t", ","):
            position += 1
    return found


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The caller's word for a request, and the digest of its body."""

    key: str
    digest: bytes

    @classmethod
    def read(
        cls, values: Sequence[str], members: Mapping[str, str], key: str | None
    ) -> "IdempotencyKey | None":
        """From the header's lines and the body; None where there is no header.

        InvalidInput for a header that is no key (400), or another one than the body's `key` (422).
        """
        if not values:
            return None
        found = _key(values)
        if key is not None and key != found:
            message = "is another key than the member key; send one"
            raise InvalidInput(
                f"the Idempotency-Key {message}", errors=[FieldError("/Idempotency-Key", message)]
            )
        return cls(found, _digest(members))

    def check(self, known: bytes | None) -> None:
        """InvalidInput (422) if the request that had this key first had another body."""
        if known is not None and known != self.digest:
            raise InvalidInput(
                "the Idempotency-Key was used for another request; send a new key",
                errors=[FieldError("/Idempotency-Key", "was used with another body")],
            )


def _digest(members: Mapping[str, str]) -> bytes:
    """Of the members by name: their order, and space between them, make no difference."""
    digest = hashlib.sha256()
    for name, text in sorted(members.items()):
        for part in (name, text):
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(encoded) + encoded)
    return digest.digest()


def _key(values: Sequence[str]) -> str:
    if len(values) > 1:
        raise _wrong("there is more than one")
    match = _KEY.fullmatch(values[0].strip(" \t"))
    if match is None:
        raise _wrong(
            'must be a string in quotes, such as "8e03978e-40d5", or a bare word, '
            f"of 1 to {MAX_TEXT_LENGTH} printable ASCII characters"
        )
    return match[0] if match[1] is None else re.sub(r"\\(.)", r"\1", match[1])


def _wrong(message: str) -> InvalidInput:
    errors = [FieldError("/Idempotency-Key", message)]
    return InvalidInput(f"Idempotency-Key: {message}", status=400, errors=errors)
