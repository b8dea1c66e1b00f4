"""Who may use the API: those who are known, each route for those who have its scope.

Bearer tokens and their errors: RFC 6750.
"""

from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hybridjobs.ingress.api.callers import Caller, Callers
from hybridjobs.ingress.asgi import Application
from hybridjobs.ingress.limits import RateLimit
from hybridjobs.ingress.problems import Refused
from hybridjobs.model import ApiScope

_CALLER = "hybridjobs.caller"
_CHALLENGE = 'Bearer realm="hybridjobs"'


class Access:
    """Serves those who are known, and nobody faster than `limit` allows."""

    def __init__(self, app: ASGIApp, callers: Sequence[Callers], limit: RateLimit) -> None:
        self._app = app
        self._callers = callers
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, or raise Refused (401, 429), or Unavailable where nobody can tell who calls."""
        caller = await self._caller(scope)
        self._limit.take(caller.name)
        scope[_CALLER] = caller
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        header = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, token = header.partition(b" ")
        if scheme.lower() != b"bearer" or not token:
            raise _unauthorized(
                "send a token: Authorization: Bearer …; `hybridjobs token create` makes one"
            )
        text = token.strip().decode("latin-1")
        for callers in self._callers:
            if (caller := await callers.find(text)) is not None:
                return caller
        raise _unauthorized("the token is wrong, expired or revoked", ', error="invalid_token"')


class ApiRoute(Route):
    """A route to a coroutine function that answers for itself, for callers who have its scope."""

    def __init__(
        self,
        needs: ApiScope,
        method: str,
        path: str,
        endpoint: Callable[[Request, Send], Awaitable[None]],
    ) -> None:
        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            await endpoint(Request(scope, receive), send)

        super().__init__(path, Application(serve), methods=[method])
        self.needs = needs

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, or raise Refused (403)."""
        if (reason := await caller_of(scope).refusal(self.needs)) is not None:
            challenge = f'{_CHALLENGE}, error="insufficient_scope", scope="{self.needs}"'
            raise Refused(403, "Forbidden", reason, headers={"WWW-Authenticate": challenge})
        await super().handle(scope, receive, send)


def caller_of(scope: Scope) -> Caller:
    """Who sent this request, which has come through Access."""
    caller: Caller = scope[_CALLER]
    return caller


def _unauthorized(detail: str, error: str = "") -> Refused:
    return Refused(401, "Unauthorized", detail, headers={"WWW-Authenticate": _CHALLENGE + error})
