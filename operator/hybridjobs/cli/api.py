"""The API as the commands use it: one client, whose errors say what to do."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import httpx

from hybridjobs.cli.exits import CommandError, Exit, exit_of
from hybridjobs.client import BearerAuth, Client
from hybridjobs.client.answers import error_of
from hybridjobs.errors import HybridJobsError, InvalidInput

_TIMEOUT_SECONDS = 30.0


class Api:
    """The console listener (:8081) of an installation, with its bearer token."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token
        try:
            self._client = httpx.Client(base_url=url, auth=BearerAuth(token), trust_env=False)
        except httpx.InvalidURL as error:
            raise CommandError(Exit.USAGE, f"{url} is no address: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        content: str | None = None,
        query: dict[str, str | int] | None = None,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> tuple[int, str]:
        """Status and JSON text of a success; CommandError for every other answer."""
        response = self._answer(method, path, content, query, timeout_seconds)
        if not response.headers.get("Content-Type", "").startswith("application/json"):
            raise error_of(response)
        return response.status_code, response.text

    def log(self, job_id: str, attempt: int | None) -> tuple[str, str]:
        """The number of the attempt, as the API writes it, and its log; "" before the first."""
        query: dict[str, str | int] = {} if attempt is None else {"attempt": attempt}
        path = f"/api/jobs/{job_id}/logs"
        response = self._answer("GET", path, None, query, _TIMEOUT_SECONDS)
        return response.headers.get("HybridJobs-Attempt", ""), response.text

    def follow(
        self, follow: Callable[[Client], Awaitable[None]], *, timeout_seconds: float
    ) -> None:
        """Have a coroutine follow jobs by the Python client; TimeoutError after that time."""

        async def following() -> None:
            async with (
                Client(self._url, self._token) as client,
                asyncio.timeout(timeout_seconds),
            ):
                await follow(client)

        try:
            asyncio.run(following())
        except InvalidInput as error:
            raise CommandError(exit_of(error.status), _explained(error)) from error

    def _answer(
        self,
        method: str,
        path: str,
        content: str | None,
        query: dict[str, str | int] | None,
        timeout_seconds: float,
    ) -> httpx.Response:
        try:
            response = self._client.request(
                method,
                path,
                content=content,
                params=query,
                headers={"Content-Type": "application/json"},
                timeout=timeout_seconds,
            )
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            message = f"this cannot be asked of the API: {error}"
            raise CommandError(Exit.USAGE, message) from error
        if not response.is_success:
            raise CommandError(exit_of(response.status_code), _explained(error_of(response)))
        return response

    def _unreachable(self, error: httpx.HTTPError) -> CommandError:
        return CommandError(
            Exit.UNAVAILABLE,
            f"{self._url} does not answer ({error}). In a cluster: "
            "kubectl port-forward svc/hybridjobs-api 8081",
        )


def _explained(error: HybridJobsError) -> str:
    """The error and, a line each, its faults, and what to do."""
    if not isinstance(error, InvalidInput):
        return str(error)
    lines = [error.detail, *(f"  {fault.path}: {fault.message}" for fault in error.errors)]
    if error.status == 401:
        lines.append("  set HYBRIDJOBS_API_TOKEN or --token")
    return "\n".join(lines)
