"""`spec.mapping` of a HybridJobType: an event becomes the payload that the type's handler wants.

A path is that of `concurrency.key`, which Postgres reads as `payload::jsonb #>>
string_to_array(path, '.')`: names of members, or places in an array, the last of which is -1.
"""

import re
from collections.abc import Mapping

from hybridjobs import codec

_PLACE = re.compile(r"-?[0-9]{1,9}", re.ASCII)


def mapped(event: str, mapping: Mapping[str, str]) -> str:
    """The object with the members of `mapping`, each value as the event has it at its path.

    A member whose path leads nowhere is left out. ValueError where the event is not a JSON object.
    """
    reader = _Reader(event)
    found = ((name, reader.at(path)) for name, path in mapping.items())
    members = (f"{codec.dumps(name)}:{text}" for name, text in found if text is not None)
    return f"{{{','.join(members)}}}"


class _Reader:
    """Reads a JSON text by paths; what several of them share is parsed once."""

    def __init__(self, text: str) -> None:
        self._inside: dict[str, dict[str, str] | list[str]] = {"": codec.members(text)}

    def at(self, path: str) -> str | None:
        """The text of the value there; None: there is none."""
        outer, dot, name = path.rpartition(".")
        inside = self._inside_of(outer if dot else "")
        if isinstance(inside, dict):
            return inside.get(name)
        if not _PLACE.fullmatch(name) or not -len(inside) <= int(name) < len(inside):
            return None
        return inside[int(name)]

    def _inside_of(self, path: str) -> dict[str, str] | list[str]:
        if path not in self._inside:
            text = self.at(path)
            self._inside[path] = [] if text is None else _inside(text)
        return self._inside[path]


def _inside(text: str) -> dict[str, str] | list[str]:
    """The parts of an object or an array; a scalar has none."""
    match text.lstrip(" \t\n\r")[:1]:
        case "{":
            return codec.members(text)
        case "[":
            return codec.elements(text)
    return []
