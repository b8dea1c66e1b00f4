"""What a query will cost, before GitHub has told.

A hundredth of the requests that GitHub makes of its own for it, one for each page of a connection;
at least one point. Lists that `@include` leaves out are counted all the same.
https://docs.github.com/en/graphql/overview/rate-limits-and-query-limits-for-the-graphql-api
"""

import re
from collections.abc import Mapping

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\.\.\.|[{}()]|\$?\w+')
_COUNTS = frozenset({"totalCount", "issueCount"})


def points(document: str, variables: Mapping[str, object]) -> int:
    """Of the first query of a valid document."""
    tokens = _TOKEN.findall(document)
    requests, _, _ = _Reader(tokens, variables).selection(tokens.index("{") + 1)
    return max(1, (requests + 50) // 100)


class _Reader:
    def __init__(self, tokens: list[str], variables: Mapping[str, object]) -> None:
        self._tokens = tokens
        self._variables = variables
        # Fragments begin after `fragment NAME on TYPE {`.
        self._fragments = {
            tokens[place + 1]: place + 5
            for place, word in enumerate(tokens)
            if word == "fragment" and tokens[place + 2 : place + 5 : 2] == ["on", "{"]
        }

    def selection(self, at: int) -> tuple[int, bool, int]:
        """Requests for one object, whether it only counts, and the place after the `}`."""
        requests, size = 0, None
        names: set[str] = set()
        while (word := self._tokens[at]) != "}":
            at += 1
            if word == "(":
                found, at = self._arguments(at)
                size = found or size
            elif word == "{":
                inner, counts, at = self.selection(at)
                requests += counts + inner if size is None else 1 + size * inner
                size = None
            elif word != "...":
                names.add(word)
            elif self._tokens[at] == "on":
                at += 2
            else:
                requests += self.selection(self._fragments[self._tokens[at]])[0]
                at += 1
        return requests, bool(names) and names <= _COUNTS, at + 1

    def _arguments(self, at: int) -> tuple[int | None, int]:
        """How many are asked for, if the arguments say, and the place after the `)`."""
        size: int | None = None
        while (word := self._tokens[at]) != ")":
            at += 1
            if word in ("first", "last"):
                value = self._tokens[at]
                said = self._variables.get(value[1:]) if value.startswith("$") else value
                size = int(str(said)) if str(said).isdigit() else None
        return size, at + 1
