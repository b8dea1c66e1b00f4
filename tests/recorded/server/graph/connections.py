"""Connections: windows of sorted keys, by cursors that stay right while items come and go.

Source: https://docs.github.com/en/graphql/guides/using-pagination-in-the-graphql-api
"""

import base64
import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..contents import Key

_PREFIX = "cursor:v2:"


class QueryError(Exception):
    """An error of GitHub's kinds; `type` stands beside its message."""

    def __init__(self, type_: str, message: str) -> None:
        super().__init__(message)
        self.type = type_


@dataclass(frozen=True)
class Connection:
    """A page; without `nodes`, where only the count is answered."""

    total: int
    nodes: list[Any] | None = None
    cursors: tuple[str, ...] = ()
    has_next: bool = False
    has_previous: bool = False

    def field(self, name: str) -> Any:
        """By GraphQL's name."""
        if name == "totalCount":
            return self.total
        if self.nodes is None:
            raise QueryError("NOT_ANSWERED", f"only totalCount of this is answered here: {name}")
        match name:
            case "nodes":
                return self.nodes
            case "edges":
                pairs = zip(self.cursors, self.nodes, strict=True)
                return [{"cursor": cursor, "node": node} for cursor, node in pairs]
            case _:
                return {
                    "hasNextPage": self.has_next,
                    "hasPreviousPage": self.has_previous,
                    "startCursor": self.cursors[0] if self.cursors else None,
                    "endCursor": self.cursors[-1] if self.cursors else None,
                }


def connection(
    keys: Sequence[Key],
    make: Callable[[int], Any],
    *,
    descending: bool = False,
    first: int | None = None,
    last: int | None = None,
    after: str | None = None,
    before: str | None = None,
) -> Connection:
    """The page asked for of ascending `keys`; `make` gives the node of a key's number."""
    low, high = 0, len(keys)
    if after:
        key = _decoded(after)
        low = high - bisect_left(keys, key) if descending else bisect_right(keys, key)
    if before:
        key = _decoded(before)
        high = high - bisect_right(keys, key) if descending else bisect_left(keys, key)
    high = max(low, high)
    start, stop = low, high
    if first is not None:
        stop = min(stop, start + first)
    if last is not None:
        start = max(start, stop - last)
    chosen = [keys[len(keys) - 1 - at if descending else at] for at in range(start, stop)]
    return Connection(
        len(keys),
        [make(number) for _, number in chosen],
        tuple(_encoded(key) for key in chosen),
        has_next=stop < len(keys),
        has_previous=start > 0,
    )


def of_list(items: Sequence[Any], **window: Any) -> Connection:
    """Of items in their order."""
    keys = [(at, at) for at in range(len(items))]
    return connection(keys, lambda at: items[at], **window)


def _encoded(key: Key) -> str:
    return base64.b64encode(f"{_PREFIX}{json.dumps(key)}".encode()).decode()


def _decoded(cursor: str) -> Key:
    try:
        text = base64.b64decode(cursor, validate=True).decode()
        value, number = json.loads(text.removeprefix(_PREFIX))
        return int(value), int(number)
    except (ValueError, TypeError):
        message = f"`{cursor}` does not appear to be a valid cursor."
        raise QueryError("INVALID_CURSOR_ARGUMENTS", message) from None
