"""What the members of a JSON object, and the parameters of a query, may be.

A check takes what was sent and returns the value that it stands for, or raises Fault. Its schema
says the same as JSON Schema does, for the API's OpenAPI document.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from starlette.datastructures import QueryParams

from hybridjobs import codec
from hybridjobs.errors import FieldError, InvalidInput
from hybridjobs.model import CALLBACK_EVENTS, MAX_CALLBACK_URL_LENGTH, Callback
from hybridjobs.payload import pointer

MAX_TEXT_LENGTH = 255
MAX_NOTE_LENGTH = 4000

_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_AHEAD = timedelta(days=3653)
# RFC 3339; datetime.fromisoformat takes more, such as weeks and dates without a time.
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Fault(Exception):  # noqa: N818 - the input's, and always caught here
    """The value cannot be taken; `path` leads to the fault within it."""

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path = path


Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """How a value is read, and what it may be."""

    read: Callable[[Any], Any]
    schema: Schema

    def __call__(self, value: Any) -> Any:  # noqa: ANN401 - whatever was sent
        """The value that it stands for, or Fault."""
        return self.read(value)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a JSON object may be; `what` says it in words, `raw` are members of any JSON."""

    what: str
    checks: Mapping[str, Check]
    required: tuple[str, ...] = ()
    raw: Mapping[str, Schema] = field(default_factory=dict)

    def read(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """The checked values of the members; InvalidInput (422) names every fault."""
        return read_members(
            texts, self.checks, required=self.required, raw=self.raw, shape=self.what
        )

    def schema(self) -> Schema:
        """The same as JSON Schema."""
        members = {
            name: check.schema if name in self.required else nullable(check.schema)
            for name, check in self.checks.items()
        }
        return {
            "type": "object",
            "properties": {**members, **self.raw},
            "required": list(self.required),
            "additionalProperties": False,
        }


def read_members(
    texts: Mapping[str, str],
    checks: Mapping[str, Check],
    *,
    required: Collection[str] = (),
    raw: Collection[str] = (),
    shape: str,
) -> dict[str, Any]:
    """The checked values of an object's members; InvalidInput (422) names every fault.

    null is as good as absent, unless the member is required. Those of `raw` stay the text that
    they were written in. `shape` says what the object should be.
    """
    known = {*checks, *raw}
    errors = [FieldError(pointer(name), "unknown member") for name in texts if name not in known]
    errors += [FieldError(pointer(name), "is required") for name in required if name not in texts]
    values: dict[str, Any] = {name: texts[name] for name in raw if name in texts}
    for name, written in texts.items():
        value = codec.loads(written) if name in checks else None
        if name not in checks or (value is None and name not in required):
            continue
        try:
            values[name] = checks[name](value)
        except Fault as fault:
            errors.append(FieldError(pointer(name, *fault.path), str(fault)))
    if errors:
        raise InvalidInput(f"the request does not have the shape of {shape}", errors=errors)
    return values


def read_query(query: QueryParams, checks: Mapping[str, Check]) -> dict[str, Any]:
    """The checked values of a query's parameters; InvalidInput (422) names every fault."""
    errors: list[FieldError] = []
    values: dict[str, Any] = {}
    for name in query:
        try:
            if name not in checks:
                raise Fault("unknown parameter")
            if len(query.getlist(name)) > 1:
                raise Fault("is there more than once")
            values[name] = checks[name](query[name])
        except Fault as fault:
            errors.append(FieldError(pointer(name, *fault.path), str(fault)))
    if errors:
        raise InvalidInput("the query is wrong", errors=errors)
    return values


def nullable(schema: Schema) -> Schema:
    """The schema, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def _text(value: object) -> str:
    if isinstance(value, str) and 0 < len(value) <= MAX_TEXT_LENGTH and value.isprintable():
        return value
    raise Fault(f"must be a string of 1 to {MAX_TEXT_LENGTH} printable characters")


text = Check(_text, {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_LENGTH})
"""A short text that can be shown."""


def _note(value: object) -> str:
    if isinstance(value, str) and len(value) <= MAX_NOTE_LENGTH and _is_storable(value):
        return value
    raise Fault(f"must be a string of at most {MAX_NOTE_LENGTH} characters without NUL")


note = Check(_note, {"type": "string", "maxLength": MAX_NOTE_LENGTH})
"""A remark of some lines."""


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise Fault("must be true or false")


def integer(least: int, most: int) -> Check:
    """An integer within bounds."""

    def check(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise Fault(f"must be an integer from {least} to {most}")

    return Check(check, {"type": "integer", "minimum": least, "maximum": most})


def number(over: float, most: float) -> Check:
    """A number above the one bound, and at most the other."""

    def check(value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and over < value <= most:
            return float(value)
        raise Fault(f"must be a number above {over:g}, at most {most:g}")

    return Check(check, {"type": "number", "exclusiveMinimum": over, "maximum": most})


def digits(least: int, most: int) -> Check:
    """An integer within bounds, in a query."""

    def check(value: str) -> int:
        if value.isascii() and value.isdigit() and len(value) < 10 and least <= int(value) <= most:
            return int(value)
        raise Fault(f"must be an integer from {least} to {most}")

    return Check(check, {"type": "integer", "minimum": least, "maximum": most})


def one_of(names: Sequence[str]) -> Check:
    """One of the names."""

    def check(value: object) -> str:
        if isinstance(value, str) and value in names:
            return str(value)
        raise Fault(f"must be one of {', '.join(names)}")

    return Check(check, {"type": "string", "enum": [str(name) for name in names]})


def some_of(names: Sequence[str]) -> Check:
    """Some of the names, with commas between them, in a query."""
    check_name = one_of(names)

    def check(value: str) -> tuple[str, ...]:
        return tuple(check_name(name) for name in value.split(","))

    any_of = "|".join(map(re.escape, names))
    return Check(check, {"type": "string", "pattern": f"^({any_of})(,({any_of}))*$"})


def texts(most: int) -> Check:
    """An array of short texts."""

    def check(value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or len(value) > most:
            raise Fault(f"must be an array of at most {most} strings")
        for place, item in enumerate(value):
            try:
                text(item)
            except Fault as fault:
                raise Fault(str(fault), place) from None
        return tuple(value)

    return Check(check, {"type": "array", "maxItems": most, "items": text.schema})


def _callback(value: object) -> Callback:
    if not isinstance(value, dict) or not isinstance(url := value.get("url"), str):
        raise Fault('must be an object such as {"url": "https://example.com/done"}')
    for name in value:
        if name not in ("url", "on"):
            raise Fault("unknown member", name)
    events = value.get("on", list(CALLBACK_EVENTS))
    if not isinstance(events, list) or not 1 <= len(events) <= len(CALLBACK_EVENTS):
        raise Fault(f"must be an array of some of {', '.join(CALLBACK_EVENTS)}", "on")
    for place, event in enumerate(events):
        try:
            _callback_event(event)
        except Fault as fault:
            raise Fault(str(fault), "on", place) from None
    return Callback(url=url, events=tuple(events))


_callback_event = one_of(CALLBACK_EVENTS)
callback = Check(
    _callback,
    {
        "type": "object",
        "properties": {
            "url": {"type": "string", "format": "uri", "maxLength": MAX_CALLBACK_URL_LENGTH},
            "on": {
                "type": "array",
                "minItems": 1,
                "maxItems": len(CALLBACK_EVENTS),
                "items": _callback_event.schema,
            },
        },
        "required": ["url"],
        "additionalProperties": False,
    },
)
"""Whom to tell of a job's end; where the URL may lead is Targets' to say."""


def timestamp(value: object) -> datetime:
    """A time of RFC 3339."""
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        raise Fault("must be a time of RFC 3339, such as 2026-11-24T09:30:00Z")
    text, second = value.upper(), timedelta(0)
    if text[11:19] == "23:59:60" and text.endswith(("Z", "+00:00", "-00:00")):
        # A leap second, which Python does not know: the next one.
        text, second = f"{text[:17]}59{text[19:]}", timedelta(seconds=1)
    try:
        return datetime.fromisoformat(text) + second
    except (ValueError, OverflowError) as error:
        raise Fault(f"is no time: {error}") from None


def _moment(value: object) -> datetime:
    found = timestamp(value)
    if not _EARLIEST <= found <= datetime.now(UTC) + _AHEAD:
        raise Fault("must be from the year 2000 until ten years ahead")
    return found.astimezone(UTC)


moment = Check(_moment, {"type": "string", "format": "date-time"})
"""A time of RFC 3339, from the year 2000 until ten years ahead."""


def _identifier(value: object) -> UUID:
    if isinstance(value, str) and _UUID.fullmatch(value):
        return UUID(value)
    raise Fault("must be a UUID")


identifier = Check(_identifier, {"type": "string", "format": "uuid"})
"""A UUID."""

truth = Check(_boolean, {"type": "boolean"})
"""A JSON boolean."""


def _is_storable(value: str) -> bool:
    return "\0" not in value and not any("\ud800" <= each <= "\udfff" for each in value)
