"""The one JSON codec. Exact: payloads cross this program as text, and are never re-written.

The standard library's parser keeps integers of any size, which orjson does not; orjson serves
where only validity or strings matter and speed counts.
"""

import json
from contextlib import suppress
from json.decoder import scanstring  # type: ignore[attr-defined]
from math import isfinite
from typing import Any


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if not isfinite(value):
        raise ValueError(f"{number[:40]} is beyond every finite number")
    return value


_decoder = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_SPACE = " \t\n\r"
# Less deep than this, the standard library's parser takes whatever orjson does: its limit is the
# interpreter's, 1000 calls, and orjson's is 1024.
_SHALLOW = 800
MORE_FOLLOWS = "unexpected content after document"  # orjson's words


def dumps(value: object) -> str:
    """Compact JSON text; ValueError for NaN and infinities, which JSON does not have."""
    return _encoder.encode(value)


def loads(text: str | bytes) -> Any:  # noqa: ANN401 - JSON is any
    """The value of a JSON text; ValueError with the place of the fault, or for 1e999."""
    return _decoder.decode(text if isinstance(text, str) else text.decode())


def check(text: str) -> None:
    """As `loads`, for those who do not need the value: in half the time."""
    if openings(text) < _SHALLOW:
        import orjson  # here, since the SDK uses this module and imports no library

        with suppress(orjson.JSONDecodeError):  # it cannot tell of large integers, and half pairs
            orjson.loads(text)
            return
    loads(text)


def openings(text: str) -> int:
    """How many braces and brackets open, also within strings: the text is nested no deeper."""
    # To take bytes out is several times as fast as to count characters.
    encoded = text.encode("utf-8", "surrogatepass")
    without = len(encoded.replace(b"{", b"")) + len(encoded.replace(b"[", b""))
    return 2 * len(encoded) - without


def members(text: str, *, once: bool = False) -> dict[str, str]:
    """The members of a JSON object, each value as the text it was written in.

    Of one that is there twice the last counts; with `once` that is a ValueError, as other readers
    take the first (RFC 8259, 4). So it is where the text is no JSON object.
    """
    position = _skip(text, 0)
    if text[position : position + 1] != "{":
        raise ValueError("expected a JSON object")
    found: dict[str, str] = {}
    has_object = False
    position = _skip(text, position + 1)
    while text[position : position + 1] != "}":
        if text[position : position + 1] != '"':
            raise ValueError(f"expected a member name at character {position}")
        name, position = scanstring(text, position + 1)
        position = _skip(text, position)
        if text[position : position + 1] != ":":
            raise ValueError(f"expected ':' at character {position}")
        start = _skip(text, position + 1)
        if text[start : start + 1] == "{" and not has_object:
            # The payload, nearly always. All that follows is looked at, which must not be done for
            # each: it would cost the square of the text's size.
            position, has_object = _end_of_object(text, start), True
        else:
            position = _end(text, start)
        if once and name in found:
            raise ValueError(f"the member {name[:40]!r} is there more than once")
        found[name] = text[start:position]
        position = _skip(text, position)
        if text[position : position + 1] == ",":
            position = _skip(text, position + 1)
            if text[position : position + 1] == "}":
                raise ValueError(f"trailing comma before character {position}")
        elif text[position : position + 1] != "}":
            raise ValueError(f"expected ',' or '}}' at character {position}")
    if _skip(text, position + 1) != len(text):
        raise ValueError(f"unexpected text after the object, at character {position + 1}")
    return found


def elements(text: str) -> list[str]:
    """The elements of a JSON array, each as the text it was written in.

    ValueError where the text is no JSON array.
    """
    start = _skip(text, 0)
    if text[start : start + 1] != "[":
        raise ValueError("expected a JSON array")
    spans, end = _spans(text, start)
    if _skip(text, end) != len(text):
        raise ValueError(f"unexpected text after the array, at character {end}")
    return [text[first:last] for first, last in spans]


def _end(text: str, start: int) -> int:
    """Where the value ends that begins at `start`.

    A large array is never built as a whole, and other threads have their turn between its elements.
    """
    if text[start : start + 1] == "[":
        return _spans(text, start)[1]
    return _decoder.raw_decode(text, start)[1]


def _end_of_object(text: str, start: int) -> int:
    """Where the object ends that begins at `start`: by orjson, in half the time, if it can tell."""
    rest = text[start:]
    if openings(rest) < _SHALLOW:
        import orjson

        try:
            orjson.loads(rest)
        except orjson.JSONDecodeError as error:
            if error.msg == MORE_FOLLOWS:
                return start + len(rest[: error.pos].rstrip(_SPACE))
    return _end(text, start)


def _spans(text: str, start: int) -> tuple[list[tuple[int, int]], int]:
    """Where the elements begin and end of the array that begins at `start`, and where it ends."""
    position = _skip(text, start + 1)
    if text[position : position + 1] == "]":
        return [], position + 1
    spans: list[tuple[int, int]] = []
    while True:
        _, end = _decoder.raw_decode(text, position)
        spans.append((position, end))
        position = _skip(text, end)
        if text[position : position + 1] == "]":
            return spans, position + 1
        if text[position : position + 1] != ",":
            raise ValueError(f"expected ',' or ']' at character {position}")
        position = _skip(text, position + 1)


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position
