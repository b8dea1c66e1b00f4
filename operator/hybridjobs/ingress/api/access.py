"""Who may use the API: those who are known, each route for those who have its scope.

Bearer tokens and their errors: RFC 6750.
"""

from collections.abc import Mapping, Sequence

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hybridjobs.ingress.api.callers import Caller, Callers
from hybridjobs.ingress.asgi import Application, bearer_token
from hybridjobs.ingress.limits import RateLimit
from hybridjobs.ingress.problems import Refused
from hybridjobs.model import ApiScope

_CALLER = "hybridjobs.caller"
_ACCESS = "hybridjobs.access"
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
        scope[_CALLER], scope[_ACCESS] = caller, self
        await self._app(scope, receive, send)

    async def still_allows(self, scope: Scope, needed: ApiScope) -> bool:
        """Whether who sent this request is known still, and has the scope; Unavailable."""
        try:
            caller = await self._caller(scope)
        except Refused:
            return False
        return await caller.refusal(needed) is None

    async def _caller(self, scope: Scope) -> Caller:
        headers = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(headers) > 1:
            raise _unauthorized("there is more than one Authorization header")
        token = bearer_token(headers[0]) if headers else None
        if not token:
            raise _unauthorized(
                "send a token: Authorization: Bearer …; `hybridjobs token create` makes one"
            )
        text = token.decode("latin-1")
        for callers in self._callers:
            if (caller := await callers.find(text)) is not None:
                return caller
        raise _unauthorized("the token is wrong, expired or revoked", ', error="invalid_token"')


class ApiRoute(Route):
    """A path, and by method the scope that it needs and what serves those who have it."""

    def __init__(self, path: str, methods: Mapping[str, tuple[ApiScope, ASGIApp]]) -> None:
        super().__init__(path, Application(self._serve), methods=list(methods))
        self._methods = methods

    @property
    def needs(self) -> dict[str, ApiScope]:
        """The scope by method."""
        return {method: needed for method, (needed, _) in self._methods.items()}

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, or raise Refused (403)."""
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        needed, app = self._methods[method]
        if (reason := await caller_of(scope).refusal(needed)) is not None:
            challenge = f'{_CHALLENGE}, error="insufficient_scope", scope="{needed}"'
            raise Refused(403, "Forbidden", reason, headers={"WWW-Authenticate": challenge})
        await app(scope, receive, send)


def caller_of(scope: Scope) -> Caller:
    """Who sent this request, which has come through Access."""
    caller: Caller = scope[_CALLER]
    return caller


async def may_go_on(scope: Scope, needed: ApiScope) -> bool:
    """Whether an answer without an end may go on: tokens are revoked, and expire, meanwhile.

    Unavailable where nobody can tell.
    """
    access: Access = scope[_ACCESS]
    return await access.still_allows(scope, needed)


def _unauthorized(detail: str, error: str = "") -> Refused:
    return Refused(401, "Unauthorized", detail, headers={"WWW-Authenticate": _CHALLENGE + error})
