"""GitHub's REST API, as far as the handlers ask it, with its errors in the handlers' words.

On githubkit, but without its models: they refuse an answer that lacks any member which the newest
description requires (of the recorded pull requests, four in five), cost a few hundred milliseconds
to import, and the answers become rows at once. Rate limits:
https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
from githubkit import GitHub
from githubkit.exception import GitHubException, RateLimitExceeded, RequestError, RequestFailed
from githubkit.typing import RetryOption

from hybridjobs.sdk import PermanentError, RetryLater

API_URL = "https://api.github.com"
PAGE_SIZE = 100
_TIMEOUT = httpx.Timeout(10, connect=5)
# A reset is given in whole seconds, by another clock.
_RESET_MARGIN_SECONDS = 1
_LIMITED_SECONDS = 60

Object = dict[str, Any]


class TransientError(Exception):
    """GitHub or the way to it is in trouble; it may be over soon."""


class GitHubClient:
    """The requests of one job."""

    def __init__(self, github: "GitHub[Any]") -> None:
        self._github = github

    async def repository(self, owner: str, repo: str) -> Object:
        """A repository, by its name or an earlier one."""
        found: Object = (await self._get(f"/repos/{owner}/{repo}")).json()
        return found

    async def pull_request(self, owner: str, repo: str, number: int) -> Object:
        """A pull request with all its members."""
        found: Object = (await self._get(f"/repos/{owner}/{repo}/pulls/{number}")).json()
        return found

    async def pull_requests(self, full_name: str, page: int) -> tuple[list[Object], bool]:
        """A page of pull requests in any state, the last changed first; whether more follow."""
        answer = await self._get(
            f"/repos/{full_name}/pulls",
            state="all",
            sort="updated",
            direction="desc",
            per_page=PAGE_SIZE,
            page=page,
        )
        return answer.json(), "next" in answer.links

    async def _get(self, path: str, **query: str | int) -> httpx.Response:
        try:
            answer = await self._github.arequest("GET", path, params=query)
        except RateLimitExceeded as error:
            seconds = error.retry_after.total_seconds() + _RESET_MARGIN_SECONDS
            raise RetryLater(seconds, f"GitHub's rate limit: {_message(error)}") from None
        except RequestFailed as error:
            status = error.response.status_code
            if status == httpx.codes.TOO_MANY_REQUESTS:
                raise RetryLater(_LIMITED_SECONDS, f"GitHub: {_message(error)}") from None
            if status >= 500:
                raise TransientError(f"GitHub answers {status} for {path}") from None
            raise PermanentError(f"GitHub answers {status} for {path}: {_message(error)}") from None
        except RequestError as error:
            raise TransientError(
                f"cannot ask GitHub for {path}: {type(error.exc).__name__}: {error.exc}"
            ) from None
        return answer.raw_response


@asynccontextmanager
async def github_client(*, retries: int = 0) -> AsyncIterator[GitHubClient]:
    """A client as GITHUB_API_URL and GITHUB_TOKEN say.

    With `retries`, requests that met trouble are repeated so often, after 1, 4, 9 … seconds: worth
    it in a long job, not in one of a few seconds. Rate limits are never waited for.
    """
    url = os.environ.get("GITHUB_API_URL") or API_URL
    if urlsplit(url).scheme not in ("http", "https"):
        raise PermanentError(f"GITHUB_API_URL is no address: {url!r}")

    def again(error: GitHubException, count: int) -> RetryOption:
        failed = isinstance(error, RequestFailed) and error.response.status_code < 500
        if failed or not isinstance(error, RequestError) or count >= retries:
            return RetryOption(False)
        return RetryOption(True, timedelta(seconds=(count + 1) ** 2))

    github = GitHub(
        os.environ.get("GITHUB_TOKEN") or None,
        base_url=url,
        user_agent="HybridJobs",
        timeout=_TIMEOUT,
        http_cache=False,
        auto_retry=again,
    )
    async with github:
        yield GitHubClient(github)


def _message(error: RequestFailed) -> str:
    try:
        return str(error.response.json()["message"])
    except (ValueError, TypeError, KeyError):
        return error.response.text[:200]
