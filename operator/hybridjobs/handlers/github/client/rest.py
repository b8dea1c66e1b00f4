"""GitHub's REST API: the endpoints that the handlers ask, and lists by their pages.

https://docs.github.com/en/rest, …/rest/using-the-rest-api/using-pagination-in-the-rest-api
"""

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import httpx

from hybridjobs.handlers.github.client.errors import Answer, TransientError, check
from hybridjobs.handlers.github.client.graphql import GraphQL, GraphQLAnswer, PageSize, Sized
from hybridjobs.handlers.github.client.tokens import Repository
from hybridjobs.handlers.github.client.transport import Transport
from hybridjobs.sdk import RetryLater

PAGE_SIZE = 100
# GitHub works out a repository's statistics when they are first asked for.
STATISTICS_SECONDS = 10.0

Object = dict[str, Any]
T = TypeVar("T", Object, list[Object])


class StillCounting(RetryLater):
    """GitHub works out a repository's statistics; nothing of a limit."""


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a list.

    `next`: the cursor of the page after it, to be kept and given back as it is; None: the last one.
    `unchanged`: it is as it was when it was last asked for.
    """

    items: list[Object]
    next: str | None
    unchanged: bool


class GitHubClient:
    """The requests of one job.

    Each raises RetryLater when no token has anything left, the errors of `errors`, or
    TransientError. Lists come page by page, from `cursor` on (None: the first page).
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._graphql = GraphQL(transport)

    @property
    def requests_made(self) -> int:
        """How many requests were made so far, answered or not."""
        return self._transport.requests_made

    @property
    def remaining(self) -> int | None:
        """What the token that was used last has left of the resource; None: nobody told."""
        return self._transport.remaining

    async def repository(self, owner: str, repo: str) -> Object:
        """A repository, by its name or an earlier one."""
        return await self._object(Repository(owner, repo), "")

    async def pull_request(self, owner: str, repo: str, number: int) -> Object:
        """A pull request with all its members."""
        return await self._object(Repository(owner, repo), f"/pulls/{number}")

    async def issue(self, owner: str, repo: str, number: int) -> Object:
        """An issue; a pull request, which has `pull_request`, in the form of one."""
        return await self._object(Repository(owner, repo), f"/issues/{number}")

    async def user(self, login: str, *, of: Repository | None = None) -> Object:
        """A user, bot or organisation; `of`: a repository whose tokens may be used."""
        return await self._transport.get(
            f"/users/{quote(login, safe='')}", _reader(login, dict), repository=of, conditional=True
        )

    def pull_requests(
        self, owner: str, repo: str, *, since: datetime | None = None, cursor: str | None = None
    ) -> AsyncIterator[ListPage]:
        """Pull requests in any state, the last changed first, until all are changed before `since`.

        The last page may hold older ones too. What is changed meanwhile moves up, and the others
        down: they may come twice, and what was changed is on a page already read.
        """
        query = {"state": "all", "sort": "updated", "direction": "desc"}
        return self._pages(Repository(owner, repo), "/pulls", query, cursor, since)

    def reviews(
        self, owner: str, repo: str, number: int, *, cursor: str | None = None
    ) -> AsyncIterator[ListPage]:
        """Reviews of a pull request, the oldest first."""
        return self._pages(Repository(owner, repo), f"/pulls/{number}/reviews", {}, cursor)

    def review_comments(
        self, owner: str, repo: str, number: int, *, cursor: str | None = None
    ) -> AsyncIterator[ListPage]:
        """Comments on a pull request's code, the oldest first."""
        return self._pages(Repository(owner, repo), f"/pulls/{number}/comments", {}, cursor)

    def issue_comments(
        self, owner: str, repo: str, number: int, *, cursor: str | None = None
    ) -> AsyncIterator[ListPage]:
        """Comments on an issue, or on a pull request as a whole, the oldest first."""
        return self._pages(Repository(owner, repo), f"/issues/{number}/comments", {}, cursor)

    def issues(
        self, owner: str, repo: str, *, since: datetime | None = None, cursor: str | None = None
    ) -> AsyncIterator[ListPage]:
        """Issues in any state changed since then, pull requests among them, the last one first."""
        query = {"state": "all", "sort": "updated", "direction": "desc"}
        if since is not None:
            query["since"] = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return self._pages(Repository(owner, repo), "/issues", query, cursor)

    def contributors(
        self, owner: str, repo: str, *, cursor: str | None = None
    ) -> AsyncIterator[ListPage]:
        """Who committed, the busiest first; an empty page for an empty repository.

        ForbiddenError where GitHub finds the history too large to list them.
        """
        return self._pages(Repository(owner, repo), "/contributors", {}, cursor)

    async def commit_activity(self, owner: str, repo: str) -> list[Object]:
        """Commits of the last 52 weeks: {"week", "total", "days"}; or StillCounting."""
        return await self._statistics(Repository(owner, repo), "/stats/commit_activity")

    async def contributor_activity(self, owner: str, repo: str) -> list[Object]:
        """By contributor (at most 100) {"author", "total", "weeks"}; or StillCounting."""
        return await self._statistics(Repository(owner, repo), "/stats/contributors")

    async def query(
        self,
        owner: str,
        repo: str,
        document: str,
        variables: Mapping[str, object],
        *,
        size: PageSize | None = None,
    ) -> GraphQLAnswer:
        """Ask GraphQL about a repository: `GraphQL.query`."""
        return await self._graphql.query(Repository(owner, repo), document, variables, size)

    async def query_sized(
        self, owner: str, repo: str, made: Sized, size: PageSize
    ) -> GraphQLAnswer:
        """Ask GraphQL about a repository: `GraphQL.query_sized`."""
        return await self._graphql.query_sized(Repository(owner, repo), made, size)

    async def _object(self, repository: Repository, path: str) -> Object:
        full = _path(repository, path)
        read = _reader(full, dict)
        return await self._transport.get(full, read, repository=repository, conditional=True)

    async def _statistics(self, repository: Repository, path: str) -> list[Object]:
        full = _path(repository, path)
        read = _reader(full, list)

        def counted(answer: Answer) -> list[Object]:
            if answer.status == 202:
                raise StillCounting(STATISTICS_SECONDS, f"GitHub is counting for {full}")
            return read(answer)

        return await self._transport.get(full, counted, repository=repository)

    async def _pages(
        self,
        repository: Repository,
        path: str,
        query: Mapping[str, str],
        cursor: str | None,
        since: datetime | None = None,
    ) -> AsyncIterator[ListPage]:
        path = _path(repository, path)
        read = _reader(path, list)

        def page(answer: Answer) -> ListPage:
            items, following = read(answer), next_cursor(answer.headers)
            if answer.kept and following is None and len(items) == PAGE_SIZE:
                # It was the last page when it was kept: only asking tells whether another follows.
                following = urlencode({**query, "per_page": PAGE_SIZE, "page": 2})
            return ListPage(items, following, answer.kept)

        is_first = cursor is None
        while True:
            asked = cursor or urlencode({**query, "per_page": PAGE_SIZE})
            found = await self._transport.get(
                f"{path}?{asked}", page, repository=repository, conditional=is_first
            )
            yield found
            if found.next is None or (since is not None and _is_older(found.items, since, path)):
                return
            cursor, is_first = found.next, False


def next_cursor(headers: Mapping[str, str]) -> str | None:
    """The query of the next page. No more is taken from the Link header: the address is ours."""
    links = httpx.Headers({"link": headers.get("link", "")})
    url = httpx.Response(200, headers=links).links.get("next", {}).get("url")
    return urlsplit(url).query or None if url else None


def _path(repository: Repository, path: str) -> str:
    names = (quote(name, safe="") for name in (repository.owner, repository.name))
    return f"/repos/{'/'.join(names)}{path}"


def _reader(what: str, kind: type[T]) -> Callable[[Answer], T]:
    """Makes answers values of the kind, a list of objects or an object; TransientError if not."""

    def read(answer: Answer) -> T:
        check(answer, what, time.time())
        if answer.status == 204:  # an empty repository's lists
            return kind()
        try:
            value = json.loads(answer.content)
        except ValueError:
            raise TransientError(f"GitHub's answer for {what} is no JSON") from None
        items = value if isinstance(value, list) else [value]
        if not isinstance(value, kind) or not all(isinstance(item, dict) for item in items):
            raise TransientError(f"GitHub's answer for {what} is no {_KINDS[kind]}")
        return value

    return read


_KINDS: dict[type, str] = {dict: "object", list: "list of objects"}


def _is_older(items: list[Object], since: datetime, what: str) -> bool:
    """Whether what follows a page, the last changed first, is changed before `since`."""
    try:
        return bool(items) and datetime.fromisoformat(items[-1]["updated_at"]) < since
    except (KeyError, TypeError, ValueError):
        raise TransientError(f"GitHub's answer for {what} has an item without time") from None
