"""What a payload must be to be kept as it was sent and still be readable by everyone.

A payload is stored byte for byte, in a column of type json. That type takes texts which Postgres'
own operators, or a worker's parser, fail on later; they are refused here, before anything is
written. The check of an ordinary payload is a few scans of its text.
"""

import re
from collections.abc import Iterator
from typing import Any

from hybridjobs import codec
from hybridjobs.errors import FieldError, InvalidInput

MAX_DEPTH = 100

# \u0000, and halves of surrogate pairs: whole pairs are looked at too, for they are rare.
_SUSPECT = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def pointer(*parts: str | int) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


def check_payload(payload: str) -> None:
    """InvalidInput (422) for NUL and lone surrogates in strings, and for nesting over MAX_DEPTH.

    Whether the text is JSON at all is the database's to say, unless it has to be parsed here.
    """
    # A lone character is found at once, where two are not: most payloads have no backslash.
    escaped = "\\" in payload and "\\u" in payload
    if (escaped and _SUSPECT.search(payload)) or _may_be_deep(payload):
        _check_parsed(payload)


def _may_be_deep(payload: str) -> bool:
    opened = codec.openings(payload)
    # GitHub's URL templates, {/sha}, are most of the braces in what it sends, and open nothing.
    return opened > MAX_DEPTH and opened - payload.count("{/") > MAX_DEPTH


def _check_parsed(payload: str) -> None:
    try:
        document = codec.loads(payload)
    except ValueError as error:
        raise InvalidInput(f"the payload is not JSON: {error}", status=400) from None
    except RecursionError:
        raise _refused("/payload", f"is nested deeper than {MAX_DEPTH}") from None
    for path, depth, text in _strings(document):
        if depth > MAX_DEPTH:
            raise _refused(pointer("payload", *path), f"is nested deeper than {MAX_DEPTH}")
        if "\0" in text:
            raise _refused(pointer("payload", *path), "holds the character NUL (\\u0000)")
        if _LONE_SURROGATE.search(text):
            raise _refused(pointer("payload", *path), "holds half of a surrogate pair")


def _strings(document: Any) -> Iterator[tuple[tuple[str | int, ...], int, str]]:  # noqa: ANN401
    """Every string and member name with its path and depth; "" for a container too deep."""
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str):
            yield path, 0, value
        elif isinstance(value, dict | list):
            if len(path) >= MAX_DEPTH:
                yield path[:3], MAX_DEPTH + 1, ""
            elif isinstance(value, dict):
                for name, member in value.items():
                    yield path, 0, name
                    waiting.append(((*path, name), member))
            else:
                waiting.extend(((*path, place), item) for place, item in enumerate(value))


def _refused(path: str, message: str) -> InvalidInput:
    path = path.encode("utf-8", "replace").decode()
    return InvalidInput(f"{path} {message}", errors=[FieldError(path, message)])
