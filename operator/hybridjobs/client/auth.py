"""The bearer token of a client of the API."""

from collections.abc import Generator
from pathlib import Path

import httpx

from hybridjobs.errors import ConfigurationError


class BearerAuth(httpx.Auth):
    """Sends the token; of `@FILE` what is in it at each request, as a mounted one is renewed."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header, if there is a token; ConfigurationError for one that can be none."""
        token = self._read().strip()
        if not token.isascii() or not token.isprintable():
            raise ConfigurationError("the token has characters that no token has")
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        yield request

    def _read(self) -> str:
        if not self._token.startswith("@"):
            return self._token
        path = Path(self._token[1:])
        try:
            return path.read_text()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"no token in the file {path}: {error}") from error
