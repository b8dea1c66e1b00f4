"""GitHub's record of what it delivered: read, and asked to deliver again.

On httpx alone: githubkit costs 1.6 s to import, for two requests of a few members. Endpoints:
https://docs.github.com/en/rest/apps/webhooks, …/rest/repos/webhooks, …/rest/orgs/webhooks; limits:
https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt

from hybridjobs.errors import ConfigurationError, Unavailable
from hybridjobs.settings import RedeliverySettings

MAX_PAGES = 50
_PAGE_SIZE = 100
_TIMEOUT = httpx.Timeout(10, connect=5)
_VERSION = "2022-11-28"
_NAME = r"[A-Za-z0-9_.-]{1,100}"
_HOOK = re.compile(rf"({_NAME})(?:/({_NAME}))?/([0-9]{{1,19}})")
_JWT_SECONDS = 540  # GitHub takes 600 at most
_SKEW_SECONDS = 60
_MAX_LIMITED_SECONDS = 3600.0
_REFUSALS = (400, 404, 422)  # too old, unknown by now, not valid


@dataclass(frozen=True, slots=True)
class Hook:
    """A hook by its place in GitHub's API; `name` is what people call it."""

    name: str
    path: str

    @property
    def is_app(self) -> bool:
        """Whether it is the App's own."""
        return self.path == "/app/hook"

    @property
    def settings(self) -> str:
        """Those that say how it is reached."""
        if self.is_app:
            return "HYBRIDJOBS_GITHUB_APP_ID and …_PRIVATE_KEY"
        return "HYBRIDJOBS_GITHUB_HOOKS and …_TOKEN"

    @classmethod
    def parse(cls, text: str) -> Self:
        """From OWNER/REPOSITORY/ID or ORGANISATION/ID."""
        found = _HOOK.fullmatch(text)
        if found is None or {".", ".."} & {found[1], found[2]}:
            raise ConfigurationError(
                f"HYBRIDJOBS_GITHUB_HOOKS: {text!r} must be OWNER/REPOSITORY/ID or ORGANISATION/ID"
            )
        owner, repository, number = found.groups()
        if repository is None:
            return cls(text, f"/orgs/{owner}/hooks/{number}")
        return cls(text, f"/repos/{owner}/{repository}/hooks/{number}")


@dataclass(frozen=True, slots=True)
class HookDelivery:
    """One try of GitHub to deliver; all tries of one event have its `guid`."""

    id: int
    guid: str
    event: str
    delivered_at: datetime
    succeeded: bool

    @classmethod
    def parse(cls, item: dict[str, Any]) -> Self:
        """From an item of the list; KeyError, TypeError or ValueError where it is none."""
        # 0 where nobody answered.
        succeeded = 200 <= int(item["status_code"] or 0) < 300
        moment = datetime.fromisoformat(item["delivered_at"])
        if moment.tzinfo is None:
            raise ValueError("delivered_at has no time zone")
        return cls(int(item["id"]), str(item["guid"]), str(item["event"]), moment, succeeded)


class Credentials:
    """The App's key, and the token for other hooks; each may be missing."""

    def __init__(self, settings: RedeliverySettings) -> None:
        self._app_id = settings.github_app_id
        self._token = settings.github_hooks_token
        self._key: Any = None
        if settings.github_app_private_key is not None:
            pem = settings.github_app_private_key.get_secret_value()
            try:
                self._key = jwt.get_algorithm_by_name("RS256").prepare_key(pem)
            except (ValueError, TypeError, jwt.PyJWTError):
                raise ConfigurationError(
                    "HYBRIDJOBS_GITHUB_APP_PRIVATE_KEY is no RSA key in PEM form"
                ) from None

    def bearer(self, hook: Hook) -> str:
        """What authorizes requests about the hook, for some minutes."""
        if not hook.is_app:
            assert self._token is not None
            return self._token.get_secret_value()
        now = int(time.time())
        claims = {"iat": now - _SKEW_SECONDS, "exp": now + _JWT_SECONDS - _SKEW_SECONDS}
        return jwt.encode({**claims, "iss": str(self._app_id)}, self._key, algorithm="RS256")


class HookApi:
    """Requests about hooks; Unavailable: try again later, ConfigurationError: what is wrong."""

    def __init__(self, settings: RedeliverySettings) -> None:
        self._credentials = Credentials(settings)
        self._client = httpx.AsyncClient(
            base_url=settings.github_api_url,
            timeout=_TIMEOUT,
            headers={
                "accept": "application/vnd.github+json",
                "user-agent": "HybridJobs",
                "x-github-api-version": _VERSION,
            },
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def deliveries(self, hook: Hook) -> AsyncIterator[list[HookDelivery]]:
        """Pages of deliveries, the newest first; at most MAX_PAGES."""
        query: dict[str, str | int] = {"per_page": _PAGE_SIZE}
        for _ in range(MAX_PAGES):
            answer = await self._request("GET", hook, f"{hook.path}/deliveries", query)
            try:
                yield [HookDelivery.parse(item) for item in answer.json()]
            except (KeyError, TypeError, ValueError) as error:
                raise Unavailable(f"GitHub's list of {hook.name} is none: {error!r}") from None
            cursor = _next_cursor(answer)
            if cursor is None:
                return
            query["cursor"] = cursor

    async def redeliver(self, hook: Hook, delivery: HookDelivery) -> bool:
        """Have the delivery's event delivered again, soon; False: of this one GitHub will not."""
        path = f"{hook.path}/deliveries/{delivery.id}/attempts"
        return (await self._request("POST", hook, path, {}, taken=_REFUSALS)).is_success

    async def _request(
        self,
        method: str,
        hook: Hook,
        path: str,
        query: dict[str, str | int],
        *,
        taken: Collection[int] = (),
    ) -> httpx.Response:
        """The answer, if it is a success or its status is one of those `taken`."""
        # Signing takes a millisecond or two.
        bearer = await asyncio.to_thread(self._credentials.bearer, hook)
        headers = {"authorization": f"Bearer {bearer}"}
        try:
            answer = await self._client.request(method, path, params=query, headers=headers)
        except httpx.RequestError as error:
            raise Unavailable(f"GitHub does not answer: {type(error).__name__}") from None
        if answer.is_success or answer.status_code in taken:
            return answer
        if (seconds := _limited_seconds(answer)) is not None:
            raise Unavailable(f"GitHub's rate limit, for {seconds:.0f} s", retry_after=seconds)
        if answer.is_server_error:
            raise Unavailable(f"GitHub answers {answer.status_code}")
        raise ConfigurationError(
            f"GitHub answers {answer.status_code} for {hook.name}: look at {hook.settings}"
        )


def _next_cursor(answer: httpx.Response) -> str | None:
    """Of the Link header no more than this: the address is ours."""
    url = answer.links.get("next", {}).get("url")
    found = parse_qs(urlsplit(url or "").query).get("cursor")
    return found[0] if found else None


def _limited_seconds(answer: httpx.Response) -> float | None:
    """How long GitHub wants no more requests; None: that is not what it says."""
    if answer.status_code not in (403, 429):
        return None
    headers = answer.headers
    try:
        if "retry-after" in headers:
            seconds = float(headers["retry-after"])
        elif headers.get("x-ratelimit-remaining") == "0":
            seconds = float(headers["x-ratelimit-reset"]) - time.time() + 1
        elif answer.status_code == 429:
            seconds = 60.0
        else:
            return None
    except (KeyError, ValueError):
        seconds = 60.0
    return min(max(seconds, 1.0), _MAX_LIMITED_SECONDS)
