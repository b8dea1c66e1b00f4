"""GitHub's GraphQL API: what queries cost, how large their pages may be, what their errors mean.

https://docs.github.com/en/graphql/overview/rate-limits-and-query-limits-for-the-graphql-api
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hybridjobs.handlers.github.client.costs import points
from hybridjobs.handlers.github.client.errors import (
    Answer,
    Limited,
    TransientError,
    check,
    limited,
    refusal,
    said,
    until_reset,
)
from hybridjobs.handlers.github.client.limits import from_graphql
from hybridjobs.handlers.github.client.tokens import Repository
from hybridjobs.handlers.github.client.transport import Transport
from hybridjobs.sdk import PermanentError

_WHAT = "GraphQL"
_RATE_LIMIT = "rateLimit { cost limit remaining resetAt }"
_OPERATION = re.compile(r"\s*query\b[^{]*\{")
_LIMITED = frozenset({"RATE_LIMITED", "RATE_LIMIT"})
_TOO_LARGE = frozenset({"MAX_NODE_LIMIT_EXCEEDED", "RESOURCE_LIMITS_EXCEEDED"})
_ABSENT = {
    "NOT_FOUND": "NOT_FOUND",
    "FORBIDDEN": "FORBIDDEN",
    "INSUFFICIENT_SCOPES": "FORBIDDEN",
    "UNPROCESSABLE": "UNPROCESSABLE",
}
_REFUSED = {"NOT_FOUND": 404, "FORBIDDEN": 403}

Object = dict[str, Any]


class PageSize:
    """How many items of a list a query asks for (its variable `name`), as GitHub can bear.

    Halved when a query times out or is too large, or costs more than `max_cost` points; a quarter
    more after every second success. `value` may be kept in a checkpoint.
    """

    def __init__(
        self, value: int = 50, *, name: str = "first", maximum: int = 100, max_cost: int = 50
    ) -> None:
        self.value = min(max(value, 1), maximum)
        self.name = name
        self._maximum = maximum
        self._max_cost = max_cost
        self._successes = 0

    def shrink(self) -> bool:
        """Halve it; False: it is 1 already."""
        self._successes = 0
        can = self.value > 1
        self.value = max(self.value // 2, 1)
        return can

    def succeeded(self, cost: int) -> None:
        """A query of this size was answered, for so many points."""
        if cost > self._max_cost:
            self.shrink()
            return
        self._successes += 1
        if self._successes % 2 == 0:
            self.value = min(self.value + max(self.value // 4, 1), self._maximum)


@dataclass(frozen=True, slots=True)
class Problem:
    """An error beside data: what stands at `path` is null because it is absent or hidden.

    `kind`: NOT_FOUND, FORBIDDEN or UNPROCESSABLE.
    """

    kind: str
    path: tuple[str | int, ...]
    message: str


@dataclass(frozen=True, slots=True)
class GraphQLAnswer:
    """`data` without `rateLimit`; `cost` in points."""

    data: Object
    problems: tuple[Problem, ...]
    cost: int
    rate_limit: Object


# A document and its variables for a size, where the size is no variable of the document.
Sized = Callable[[int], tuple[str, Mapping[str, object]]]


class TooLargeError(TransientError):
    """The query asks for more than GitHub gives at once."""


class GraphQL:
    """Queries of one job."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._costs: dict[tuple[str, int], int] = {}

    async def query(
        self,
        repository: Repository,
        document: str,
        variables: Mapping[str, object],
        size: PageSize | None,
    ) -> GraphQLAnswer:
        """Run the one query of `document`; fragments come after it. Its cost is asked for with it.

        With `size` the query has that variable, and is made smaller until GitHub can answer it.
        Errors as elsewhere; NotFoundError or ForbiddenError where all that was asked for is null.
        """

        def made(value: int) -> tuple[str, Mapping[str, object]]:
            return document, variables if size is None else {**variables, size.name: value}

        return await self.query_sized(repository, made, size)

    async def query_sized(
        self, repository: Repository, made: Sized, size: PageSize | None
    ) -> GraphQLAnswer:
        """As `query`, with the document and the variables that `made` gives for the size."""
        while True:
            value = 1 if size is None else size.value
            document, variables = made(value)
            expected = points(document, variables)
            body = {"query": with_rate_limit(document), "variables": variables}
            try:
                answer = await self._transport.post(
                    self._transport.graphql_path,
                    body,
                    read,
                    repository=repository,
                    resource="graphql",
                    cost=max(expected, self._costs.get((document, value), 1)),
                    limit_of=lambda answer: from_graphql(answer.rate_limit),
                    can_shrink=value > 1,
                )
            except TransientError as error:
                if size is None or not error.timed_out or not size.shrink():
                    raise _too_large(error) from None
                continue
            if answer.cost > expected:
                self._costs[document, value] = answer.cost
            if size is not None:
                size.succeeded(answer.cost)
            return answer


def with_rate_limit(document: str) -> str:
    """The document, asking for its cost too."""
    found = _OPERATION.match(document)
    if found is None:
        raise ValueError("a document begins with its query")
    return f"{found[0]} {_RATE_LIMIT} {document[found.end() :]}"


def nodes(connection: Mapping[str, Any] | None) -> list[Object]:
    """The nodes of a connection that are there: those hidden from the token are null."""
    return [node for node in (connection or {}).get("nodes") or [] if node is not None]


def read(answer: Answer) -> GraphQLAnswer:
    """What GitHub answers to a query, told apart."""
    now = time.time()
    try:
        found = json.loads(answer.content)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not ({"data", "errors"} & found.keys()):
        _refuse(answer, now)
        raise TransientError(f"GitHub's answer for {_WHAT} is none: {said(answer.content)}")
    errors = found.get("errors") or []
    data = found.get("data")
    if not isinstance(errors, list) or not all(isinstance(each, dict) for each in errors):
        raise TransientError(f"GitHub's answer for {_WHAT} has errors of no form")
    problems = tuple(
        problem
        for each in errors
        if (problem := _problem(each, answer, now, is_partial=isinstance(data, dict)))
    )
    if not isinstance(data, dict):
        check(answer, _WHAT, now)
        raise _absent(problems, answer)
    rate_limit = data.pop("rateLimit", None)
    if problems and all(value is None for value in data.values()):
        raise _absent(problems, answer)
    if not isinstance(rate_limit, dict) or not isinstance(rate_limit.get("cost"), int):
        raise TransientError(f"GitHub's answer for {_WHAT} names no cost")
    return GraphQLAnswer(data, problems, rate_limit["cost"], rate_limit)


def _refuse(answer: Answer, now: float) -> None:
    limit = limited(answer, said(answer.content), now)
    if limit is not None:
        raise limit
    check(answer, _WHAT, now)


def _problem(error: Object, answer: Answer, now: float, *, is_partial: bool) -> Problem | None:
    """What one error says, where it leaves data to be used; raises else."""
    kind, message = str(error.get("type", "")), str(error.get("message", ""))[:300]
    path = tuple(error.get("path") or ())
    if kind in _LIMITED:
        raise Limited(message, until_reset(answer.headers, now), secondary=False)
    if (limit := limited(answer, message, now)) is not None:
        raise limit
    if kind in _TOO_LARGE:
        raise TooLargeError(f"GitHub's {_WHAT}: {message}", timed_out=True)
    if kind in _ABSENT and path:
        return Problem(_ABSENT[kind], path, message)
    if "something went wrong" in message.lower() or "timeout" in message.lower():
        raise TransientError(f"GitHub's {_WHAT}: {message}", timed_out=True)
    # A document that GitHub cannot take has errors with a place in it, and no data.
    if not is_partial and (error.get("locations") or error.get("extensions")):
        raise PermanentError(f"GitHub refuses the query: {message}")
    raise TransientError(f"GitHub's {_WHAT}: {kind or 'an error'}: {message}")


def _absent(problems: tuple[Problem, ...], answer: Answer) -> Exception:
    for problem in problems:
        if problem.kind in _REFUSED:
            text = f"GitHub answers {problem.kind} for {_WHAT}: {problem.message}"
            return refusal(_REFUSED[problem.kind], text, answer.headers)
    return TransientError(f"GitHub's answer for {_WHAT} has no data")


def _too_large(error: TransientError) -> Exception:
    """A page of one item that is too large stays so."""
    return PermanentError(str(error)) if isinstance(error, TooLargeError) else error
