"""CloudEvents 1.0 as HTTP carries them: structured, binary, and in batches. No I/O.

Formats: https://github.com/cloudevents/spec, version 1.0.2 (spec.md, formats/json-format.md,
bindings/http-protocol-binding.md). Whatever the mode, an event becomes one JSON text, in
CloudEvents' JSON format, with its data as it was sent.
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

from hybridjobs import codec
from hybridjobs.errors import FieldError, InvalidInput, PayloadTooLarge
from hybridjobs.ingress.asgi import Header
from hybridjobs.ingress.members import Fault, one_of, timestamp
from hybridjobs.payload import check_payload, pointer

MAX_EVENTS = 100
MAX_KEY_BYTES = 1024
MAX_TYPE_LENGTH = 256  # as long as a type's `events` may be

Mode = Literal["structured", "binary", "batch"]

_MAX_ERRORS = 20
_PREFIX = b"ce-"
_NAME = re.compile(r"[a-z0-9]{1,64}")
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
# What the type system's strings leave out: control characters, halves of pairs, noncharacters.
_NOT_TEXT = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)
# The characters of RFC 3986; a source has no space, so that one may stand between it and the id.
_URI_REFERENCE = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*(?:;.*)?")
_JSON_TYPE = re.compile(r"[^/]+/(?:json|[^/]+\+json)")  # json-format.md, 3.1


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """An event: `text` is all of it, as JSON."""

    id: str
    source: str
    type: str
    text: str

    @property
    def key(self) -> str:
        """What tells the event from every other."""
        return f"{self.source} {self.id}"


def mode_of(content_type: bytes) -> Mode:
    """The mode that a request's content type stands for; InvalidInput (415) for another format."""
    media_type = content_type.partition(b";")[0].strip().lower()
    if not media_type.startswith(b"application/cloudevents"):
        return "binary"
    if media_type == b"application/cloudevents+json":
        return "structured"
    if media_type == b"application/cloudevents-batch+json":
        return "batch"
    raise InvalidInput(
        "of CloudEvents' formats this takes application/cloudevents+json and"
        " application/cloudevents-batch+json",
        status=415,
    )


def structured(text: str) -> CloudEvent:
    """The event that a JSON text is; InvalidInput (400, 422) names every attribute at fault."""
    check_payload(text)
    try:
        members = codec.members(text)
    except ValueError as error:
        raise InvalidInput(f"the event is not a JSON object: {error}", status=400) from None
    values = {name: codec.loads(each) for name, each in members.items() if name != "data"}
    faults = []
    encoded = values.pop("data_base64", None)
    if encoded is not None:
        if "data" in members:
            faults.append(FieldError("/data_base64", "excludes data"))
        elif not _is_base64(encoded):
            faults.append(FieldError("/data_base64", "must be a string in base64"))
    return _event(values, text, faults)


def binary(headers: Iterable[Header], body: bytes) -> CloudEvent:
    """The event that a request's headers and body are; InvalidInput (400, 422) as above."""
    attributes: dict[str, Any] = {}
    faults: list[FieldError] = []
    for header, value in headers:
        if header == b"content-type":
            name, take = "datacontenttype", _ascii
        elif header.startswith(_PREFIX):
            name, take = header.removeprefix(_PREFIX).decode("latin-1"), header_value
        else:
            continue
        try:
            if name in attributes or (take is header_value and name == "datacontenttype"):
                raise Fault("is there more than once, or has a header of its own")
            attributes[name] = take(value)
        except Fault as fault:
            faults.append(FieldError(pointer(name), str(fault)))
    parts = [f"{codec.dumps(name)}:{codec.dumps(value)}" for name, value in attributes.items()]
    if body:
        parts.append(_data(body, attributes.get("datacontenttype", "")))
    text = f"{{{','.join(parts)}}}"
    event = _event(attributes, text, faults)
    check_payload(text)
    return event


def batch(text: str) -> list[CloudEvent | InvalidInput]:
    """The events of a JSON array, or what is wrong with each.

    InvalidInput (400) where there is no array, PayloadTooLarge (413) for more than MAX_EVENTS.
    """
    try:
        elements = codec.elements(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the batch is not a JSON array: {error}", status=400) from None
    if len(elements) > MAX_EVENTS:
        raise PayloadTooLarge(f"the batch has {len(elements)} events, the limit is {MAX_EVENTS}")
    return [_structured_or_fault(each) for each in elements]


def _structured_or_fault(text: str) -> CloudEvent | InvalidInput:
    try:
        return structured(text)
    except InvalidInput as error:
        return error


def header_value(value: bytes) -> str:
    """The text of a header: without quotes, and percent-decoded once; Fault for no UTF-8."""
    if quoted := _QUOTED.fullmatch(value):
        value = _ESCAPED.sub(rb"\1", quoted[1])
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise Fault("is not UTF-8, percent-encoded") from None


def _ascii(value: bytes) -> str:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        raise Fault("is not ASCII") from None


def _data(body: bytes, content_type: str) -> str:
    """The member that holds the body: JSON as it is, anything else in base64."""
    media_type = content_type.partition(";")[0].strip().lower()
    if not _JSON_TYPE.fullmatch(media_type):
        return f'"data_base64":"{b64encode(body).decode()}"'
    try:
        text = body.decode()
        # Alone: within the event's text, what is no JSON could still add up to some.
        codec.check(text)
    except (ValueError, RecursionError):
        message = f"is not JSON, as its content type {media_type} says"
        raise InvalidInput(
            f"the body {message}", status=400, errors=[FieldError("/data", message)]
        ) from None
    return f'"data":{text}'


def _event(values: Mapping[str, Any], text: str, faults: Sequence[FieldError]) -> CloudEvent:
    errors = list(faults)
    given = {name: value for name, value in values.items() if value is not None}
    wrong = {each.path for each in errors}
    missing = (pointer(name) for name in _REQUIRED if name not in given)
    errors += [FieldError(path, "is required") for path in missing if path not in wrong]
    for name, value in given.items():
        try:
            _attribute(name, value)
        except Fault as fault:
            errors.append(FieldError(pointer(name), str(fault)))
    if not errors:
        event = CloudEvent(given["id"], given["source"], given["type"], text)
        if len(event.key.encode()) <= MAX_KEY_BYTES:
            return event
        errors.append(
            FieldError("/id", f"with the source it has more than {MAX_KEY_BYTES - 1} bytes")
        )
    named = ", ".join(each.path[1:] for each in errors[:_MAX_ERRORS])
    raise InvalidInput(f"this is no CloudEvent: see {named}", errors=errors[:_MAX_ERRORS])


def _attribute(name: str, value: object) -> None:
    if not _NAME.fullmatch(name) or name == "data":
        raise Fault("is no name of an attribute: a-z and 0-9, and not data")
    _CHECKS.get(name, _extension)(value)


def _string(value: object) -> str:
    if isinstance(value, str) and value and not _NOT_TEXT.search(value):
        return value
    raise Fault("must be a string that is not empty, without control characters")


def _type(value: object) -> str:
    if len(text := _string(value)) <= MAX_TYPE_LENGTH:
        return text
    raise Fault(f"must be at most {MAX_TYPE_LENGTH} characters long")


def _uri_reference(value: object) -> str:
    if isinstance(value, str) and _URI_REFERENCE.fullmatch(value):
        return value
    raise Fault("must be a URI reference (RFC 3986)")


def _media_type(value: object) -> str:
    if isinstance(value, str) and _MEDIA_TYPE.fullmatch(value):
        return value
    raise Fault("must be a media type (RFC 2046)")


def _extension(value: object) -> object:
    match value:
        case str() if not _NOT_TEXT.search(value):
            return value
        case bool():
            return value
        case int() if -(2**31) <= value < 2**31:
            return value
    raise Fault("must be a string without control characters, a boolean or a 32-bit integer")


def _is_base64(value: object) -> bool:
    try:
        return isinstance(value, str) and b64decode(value, validate=True) is not None
    except (binascii.Error, ValueError):
        return False


_REQUIRED = ("specversion", "id", "source", "type")
_CHECKS: dict[str, Callable[[object], object]] = {
    "specversion": one_of(("1.0",)),
    "id": _string,
    "source": _uri_reference,
    "type": _type,
    "datacontenttype": _media_type,
    "dataschema": _uri_reference,
    "subject": _string,
    "time": timestamp,
}
