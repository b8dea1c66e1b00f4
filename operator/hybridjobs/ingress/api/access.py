"""Who may use the API: those with its token."""

import hmac

from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from hybridjobs.ingress.problems import Refused


class BearerToken:
    """Lets requests with the configured token through, and no other."""

    def __init__(self, app: ASGIApp, token: SecretStr | None) -> None:
        self._app = app
        self._expected = token and b"Bearer " + token.get_secret_value().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, or raise Refused."""
        if not self._expected:
            raise Refused(503, "Not configured", "the API is closed: set HYBRIDJOBS_API_TOKEN")
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(given, self._expected):
            raise Refused(
                401,
                "Unauthorized",
                "send the API's token: Authorization: Bearer …",
                headers={"WWW-Authenticate": 'Bearer realm="hybridjobs"'},
            )
        await self._app(scope, receive, send)
