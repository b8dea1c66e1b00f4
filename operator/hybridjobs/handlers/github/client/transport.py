"""One request, whatever it takes: the best token, again after trouble, never into a limit."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

import httpx
from githubkit import GitHub, Response
from githubkit.exception import RequestError, RequestFailed

from hybridjobs.handlers.github.client.cached import Kept, Responses
from hybridjobs.handlers.github.client.errors import (
    Answer,
    ForbiddenError,
    Limited,
    NamelessError,
    NotFoundError,
    RefusedError,
    TransientError,
)
from hybridjobs.handlers.github.client.installations import Installations
from hybridjobs.handlers.github.client.ledger import Ledger, Taken
from hybridjobs.handlers.github.client.limits import Limit, from_headers
from hybridjobs.handlers.github.client.tokens import Access, Repository, Token, digest_of
from hybridjobs.sdk import RetryLater

# GitHub allows a hundred at once, to all that use the token.
MAX_IN_FLIGHT = 8
_UNAUTHORIZED = 401
# GitHub gives up on a query after ten seconds.
_SOON_SECONDS = 5.0
_ANONYMOUS = Token(digest_of(""), "")
_NAMELESS = (
    "GitHub's GraphQL API answers nobody without a token: set GITHUB_TOKEN, or install the App of"
    " GITHUB_APP_ID for the repository (REST, as capture/repository.sync asks it, needs neither)"
)
_VERSION = {"x-github-api-version": "2022-11-28"}

T = TypeVar("T")
Read = Callable[[Answer], T]


class Kit(GitHub[Any]):
    """githubkit, leaving rate limits to us: it tells fewer apart and trips over odd headers."""

    def _check_rate_limit(self, response: Response[Any]) -> None: ...


class Transport:
    """The requests of one job. `retries`: how often one that met trouble is repeated."""

    def __init__(
        self,
        kit: Kit,
        tokens: list[Token],
        ledger: Ledger,
        responses: Responses,
        retries: int,
    ) -> None:
        self._kit = kit
        self._tokens = tokens
        self._ledger = ledger
        self._responses = responses
        self._retries = retries
        self._access = Access()
        self._in_flight = asyncio.Semaphore(MAX_IN_FLIGHT)
        self.installations: Installations | None = None
        self.requests_made = 0
        self.remaining: int | None = None  # as the last answer told
        # GitHub Enterprise Server has it beside its REST API, /api/v3.
        base = kit.config.base_url
        enterprise = base.path.rstrip("/").removesuffix("/v3")
        self.graphql_path = (
            str(base.copy_with(path=f"{enterprise}/graphql"))
            if base.path.rstrip("/").endswith("/api/v3")
            else "/graphql"
        )

    async def get(
        self,
        path: str,
        read: Read[T],
        *,
        repository: Repository | None = None,
        conditional: bool = False,
    ) -> T:
        """Ask for `path` (with its query). `read` makes a value of the answer, or raises.

        The errors of this package, and RetryLater when no token may be used before then.
        """
        return await self._ask("GET", path, read, repository, conditional=conditional)

    async def post(
        self,
        path: str,
        body: object,
        read: Read[T],
        *,
        repository: Repository,
        resource: str,
        cost: int,
        limit_of: Callable[[T], Limit | None],
        can_shrink: bool,
    ) -> T:
        """Post JSON; as `get`. `limit_of` finds what the body tells of the limit.

        With `can_shrink`, what timed out is not repeated as it was; a 502 that came too soon for
        that is, once.
        """
        return await self._ask(
            "POST",
            path,
            read,
            repository,
            body=body,
            resource=resource,
            cost=cost,
            limit_of=limit_of,
            can_shrink=can_shrink,
        )

    async def send(
        self, method: str, path: str, headers: dict[str, str], body: object = None
    ) -> Answer:
        """One request as it is; TransientError when there is no answer."""
        async with self._in_flight:
            self.requests_made += 1
            try:
                found = await self._kit.arequest(
                    method, path, json=body, headers=_VERSION | headers
                )
                response = found.raw_response
            except RequestFailed as error:
                response = error.response.raw_response
            except RequestError as error:
                cause = f"{type(error.exc).__name__}: {error.exc}"
                raise TransientError(
                    f"cannot ask GitHub for {path}: {cause}",
                    timed_out=isinstance(error.exc, httpx.ReadTimeout),
                ) from None
        return Answer(response.status_code, response.headers, response.content)

    async def _ask(
        self,
        method: str,
        path: str,
        read: Read[T],
        repository: Repository | None,
        *,
        body: object = None,
        resource: str = "core",
        cost: int = 1,
        conditional: bool = False,
        limit_of: Callable[[T], Limit | None] | None = None,
        can_shrink: bool = False,
    ) -> T:
        refused: dict[bytes, RefusedError] = {}
        troubles = 0
        told: str | None = None
        while True:
            try:
                tokens = await self._usable(repository, refused, resource)
            except TransientError as error:
                troubles = await self._pause(error, troubles)
                continue
            kept = await self._responses.find(path, tokens) if conditional else {}
            taken = await self._ledger.take(list(tokens), resource, cost, kept.keys(), told)
            token = tokens[taken.token]
            answer: Answer | None = None
            began = monotonic()
            try:
                answer = await self._exchange(
                    method, path, body, token, taken, kept.get(token.digest)
                )
                value = read(answer)
            except Limited as limit:
                told = str(limit)
                await self._ledger.block(taken, limit)
            except (NotFoundError, ForbiddenError) as error:
                refused[token.digest] = error
                if error.status == _UNAUTHORIZED:
                    await self._is_bad(token, repository)
            except TransientError as error:
                is_502 = answer is not None and answer.status == 502
                by_chance = is_502 and troubles == 0 and monotonic() - began < _SOON_SECONDS
                if error.timed_out and can_shrink and not by_chance:
                    raise
                troubles = await self._pause(error, troubles)
            else:
                self._access.is_blind(refused, repository)
                if limit_of is not None:
                    free = Taken(token.digest, resource, 0, None)
                    await self._ledger.settle(free, limit_of(value))
                if conditional and answer.status == 200 and not answer.kept:
                    await self._responses.keep(path, token.digest, answer)
                return value

    async def _pause(self, error: TransientError, troubles: int) -> int:
        """Wait before trying again; the error when that was done often enough."""
        if troubles >= self._retries:
            raise error from None
        await asyncio.sleep((troubles + 1) ** 2)
        return troubles + 1

    async def _usable(
        self, repository: Repository | None, refused: dict[bytes, RefusedError], resource: str
    ) -> dict[bytes, Token]:
        """By digest, the tokens that may be shown what is asked for; the last refusal if none."""
        tokens = list(self._tokens)
        if self.installations is not None and repository is not None:
            try:
                installation = await self.installations.token(repository)
            except Limited as limit:
                raise RetryLater(limit.seconds + 1, f"GitHub's rate limit: {limit}") from None
            if installation is not None:
                tokens.insert(0, installation)
        if not tokens and not refused:
            if resource == "graphql":
                raise NamelessError(_NAMELESS, _UNAUTHORIZED)
            # As for GITHUB_TOKEN unset: 60 requests an hour, of what is public.
            tokens = [_ANONYMOUS]
        usable = {
            each.digest: each
            for each in tokens
            if each.digest not in refused and self._access.serves(each, repository)
        }
        if usable:
            return usable
        if refused:
            raise max(refused.values(), key=_clarity)
        raise ForbiddenError("GitHub refuses every token that there is", _UNAUTHORIZED)

    async def _exchange(
        self,
        method: str,
        path: str,
        body: object,
        token: Token,
        taken: Taken,
        kept: Kept | None,
    ) -> Answer:
        headers = token.headers | (kept.conditions if kept is not None else {})
        try:
            answer = await self.send(method, path, headers, body)
        except BaseException:
            await self._ledger.give_back(taken)
            raise
        resource = answer.headers.get("x-ratelimit-resource")
        limit = from_headers(answer.headers)
        self.remaining = self.remaining if limit is None else limit.remaining
        await self._ledger.settle(taken, limit, resource)
        if answer.status == 304 and kept is not None:
            await self._responses.touch(path, token.digest, kept)
            # A Link there is newer than what was kept.
            headers = {**kept.answer.headers, **answer.headers}
            return Answer(200, headers, kept.answer.content, kept=True)
        return answer

    async def _is_bad(self, token: Token, repository: Repository | None) -> None:
        if token is _ANONYMOUS:
            return
        self._access.is_bad(token)
        is_personal = any(token.digest == each.digest for each in self._tokens)
        if self.installations is not None and repository is not None and not is_personal:
            await self.installations.forget(repository)


def _clarity(error: RefusedError) -> int:
    """What a lack of rights says is more than that there is nothing, or no such token."""
    return {_UNAUTHORIZED: 0, 404: 1}.get(error.status, 2)
