"""The members of GitHub's objects, with their types checked: what is written is what was meant.

Postgres has no place for NUL characters and lone surrogates, which JSON has; they leave every text.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

Object = dict[str, Any]
Row = dict[str, Any]
T = TypeVar("T")

_INTEGER = range(-(2**31), 2**31)
_BIGINT = range(1, 2**63)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class MalformedAnswerError(Exception):
    """GitHub answered with an object that is not of the form that it describes."""


class Members:
    """One object; `kind` is what it is called in errors."""

    def __init__(self, kind: str, value: object) -> None:
        if not isinstance(value, dict):
            raise MalformedAnswerError(f"GitHub's {kind} is no object but {_shown(value)}")
        self._kind = kind
        self._object: Object = value

    def text(self, name: str) -> str | None:
        """A text without what Postgres cannot hold."""
        found = self._get(name, str)
        return None if found is None else _UNSTORABLE.sub("", found)

    def flag(self, name: str) -> bool | None:
        """A boolean."""
        return self._get(name, bool)

    def number(self, name: str) -> int | None:
        """A count or the like, within 32 bits."""
        found = self._get(name, int)
        if found is not None and found not in _INTEGER:
            raise self._wrong(name, found)
        return found

    def github_id(self, name: str = "id") -> int | None:
        """One of GitHub's ids."""
        found = self._get(name, int)
        if found is not None and found not in _BIGINT:
            raise self._wrong(name, found)
        return found

    def moment(self, name: str) -> str | None:
        """A time, in UTC and one form, so that texts compare as times do."""
        found = self._get(name, str)
        if found is None:
            return None
        try:
            moment = datetime.fromisoformat(found)
        except ValueError:
            raise self._wrong(name, found) from None
        if moment.tzinfo is None:
            raise self._wrong(name, found)
        return moment.astimezone(UTC).isoformat()

    def texts(self, name: str) -> list[str] | None:
        """A list of texts."""
        found = self._get(name, list)
        if found is None:
            return None
        if not all(isinstance(each, str) for each in found):
            raise self._wrong(name, found)
        return [_UNSTORABLE.sub("", each) for each in found]

    @property
    def whole(self) -> Object:
        """The object itself."""
        return self._object

    def part(self, name: str) -> "Members":
        """An object within this one; one without members where it is null or left out."""
        return Members(f"{self._kind}'s {name}", self._get(name, dict) or {})

    def parts(self, name: str) -> "list[Members] | None":
        """A list of objects within this one."""
        found = self._get(name, list)
        if found is None:
            return None
        return [Members(f"one of {self._kind}'s {name}", each) for each in found]

    def need(self, name: str, found: T | None) -> T:
        """What was found by that name; MalformedAnswerError where it must be there and is not."""
        if found is None:
            raise MalformedAnswerError(f"GitHub's {self._kind} has no {name}")
        return found

    def has(self, name: str) -> bool:
        """Whether the member is there and not null."""
        return self._object.get(name) is not None

    def _get(self, name: str, type_: type[T]) -> T | None:
        found = self._object.get(name)
        if found is None:
            return None
        if not isinstance(found, type_) or (type_ is int and isinstance(found, bool)):
            raise self._wrong(name, found)
        return found

    def _wrong(self, name: str, found: object) -> MalformedAnswerError:
        return MalformedAnswerError(f"GitHub's {self._kind} has as {name} {_shown(found)}")


def once(rows: Iterable[Row]) -> list[Row]:
    """Each of GitHub's objects once, by their ids: the one that was updated last, else the last."""
    found: dict[int, Row] = {}
    for row in rows:
        known = found.get(row["github_id"])
        if known is None or (row["updated_at"] or "") >= (known["updated_at"] or ""):
            found[row["github_id"]] = row
    return [found[id_] for id_ in sorted(found)]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
