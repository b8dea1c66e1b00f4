"""Events of plain senders: `POST {"name", "data", "id", "ts"}`, signed as Inngest signs its calls.

For programs that spoke with the system before this one, and for those that need no Inngest.
"""

from dataclasses import dataclass
from typing import Self

from hybridjobs import codec
from hybridjobs.errors import FieldError, InvalidInput
from hybridjobs.ingress import members as checks
from hybridjobs.ingress.sources.delivery import decoded

MAX_NAME_LENGTH = 256
_MAX_TS = 2**53 - 1


def _name(value: object) -> str:
    if (
        isinstance(value, str)
        and 0 < len(value) <= MAX_NAME_LENGTH
        and value.isprintable()
        and " " not in value
    ):
        return value
    raise checks.Fault(f"must be a string of 1 to {MAX_NAME_LENGTH} characters without a space")


_CHECKS: dict[str, checks.Check] = {
    "name": checks.Check(_name, {"type": "string", "minLength": 1, "maxLength": MAX_NAME_LENGTH}),
    "id": checks.text,
    "ts": checks.integer(0, _MAX_TS),  # milliseconds; nothing depends on it
}


@dataclass(frozen=True, slots=True)
class PlainEvent:
    """An event as it was sent; `data` is the text of a JSON object."""

    name: str
    data: str
    id: str | None

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """InvalidInput says what is wrong; members that are not known are left alone."""
        text = decoded(body)
        try:
            members = codec.members(text)
        except (ValueError, RecursionError) as error:
            reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
            raise InvalidInput(f"the event is not JSON: {reason}", status=400) from None
        known = {name: text for name, text in members.items() if name in (*_CHECKS, "data")}
        values = checks.read_members(
            known, _CHECKS, required=("name",), raw=("data",), shape="an event"
        )
        data: str = values.get("data", "null")
        if data == "null":
            data = "{}"
        if not data.startswith("{"):
            fault = FieldError("/data", "must be an object")
            raise InvalidInput("the request does not have the shape of an event", errors=[fault])
        return cls(values["name"], data, values.get("id"))
