"""The API as the commands use it: one client, whose errors say what to do."""

from types import TracebackType
from typing import Any, Self

import httpx

from hybridjobs.cli.exits import CommandError, Exit
from hybridjobs.client import BearerAuth

_TIMEOUT_SECONDS = 30.0


class Api:
    """The console listener (:8081) of an installation, with its bearer token."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._client = httpx.Client(base_url=url, auth=BearerAuth(token), trust_env=False)

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
        """Status and body text of an answer below 400; CommandError for every other."""
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
            raise CommandError(
                Exit.UNAVAILABLE,
                f"{self._url} does not answer ({error}). In a cluster: "
                "kubectl port-forward svc/hybridjobs-api 8081",
            ) from error
        if response.status_code >= 400:
            raise CommandError(_code(response.status_code), _explain(response))
        return response.status_code, response.text


def _code(status: int) -> Exit:
    if status in (401, 403):
        return Exit.NOT_ALLOWED
    if status == 404:
        return Exit.NOT_FOUND
    if status in (429, 502, 503, 504):
        return Exit.UNAVAILABLE
    # 409: what was asked for is well said, and not possible as things stand.
    return Exit.USAGE if status < 500 and status != 409 else Exit.FAILED


def _explain(response: httpx.Response) -> str:
    try:
        problem: dict[str, Any] = response.json()
    except ValueError:
        return f"HTTP {response.status_code}: {response.text[:500]}"
    lines = [problem.get("detail") or problem.get("title") or f"HTTP {response.status_code}"]
    lines += [f"  {fault['path']}: {fault['message']}" for fault in problem.get("errors", [])]
    if response.status_code == 401:
        lines.append("  set HYBRIDJOBS_API_TOKEN or --token")
    return "\n".join(lines)
