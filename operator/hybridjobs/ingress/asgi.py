"""What every listener does to a request, as plain ASGI: read its body within bounds, answer, count.

Starlette's Request and Response are left aside where they cost: the webhooks' path answers
thousands of requests a second.
"""

import re
from collections.abc import Awaitable, Callable, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hybridjobs.errors import PayloadTooLarge, Unavailable
from hybridjobs.ingress import metrics
from hybridjobs.ingress.problems import ClientGone, Refused, problem_of, send_problem

Header = tuple[bytes, bytes]
Endpoint = Callable[[Scope, Receive, Send], Awaitable[None]]

# What unauthenticated clients may make us hold while they send.
MAX_INCOMPLETE_BYTES = 256 * 1024 * 1024
_incomplete_bytes = 0

JSON = (b"content-type", b"application/json")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


async def read_body(scope: Scope, receive: Receive, *, limit_bytes: int) -> bytes:
    """The request's body, whole; the time it may take is BoundedProtocol's to bound.

    PayloadTooLarge (413) as soon as Content-Length or the bytes so far exceed `limit_bytes`,
    Unavailable (503) when incomplete bodies hold too much memory together, ClientGone when the
    rest will never come.
    """
    global _incomplete_bytes  # noqa: PLW0603 - one process, one memory
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > limit_bytes:
            raise _too_large(limit_bytes)
    chunks: list[bytes] = []
    size = held = 0
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone("the client hung up")
            chunk: bytes = message["body"]
            size += len(chunk)
            if size > limit_bytes:
                raise _too_large(limit_bytes)
            if not message["more_body"]:
                return b"".join((*chunks, chunk)) if chunks else chunk
            chunks.append(chunk)
            _incomplete_bytes += size - held
            held = size
            if _incomplete_bytes > MAX_INCOMPLETE_BYTES:
                raise Unavailable("too many large requests at once", retry_after=2)
    finally:
        _incomplete_bytes -= held


def _too_large(limit_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is over the limit of {limit_bytes} bytes")


async def respond(
    send: Send, status: int, body: bytes = b"", *, headers: Iterable[Header] = (JSON,)
) -> None:
    """Answer with a whole body; a 204 has neither body nor headers."""
    fields = [] if status == 204 else [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def traceparent(headers: dict[bytes, bytes]) -> str | None:
    """The caller's trace context (W3C Trace Context); None where there is none that is valid."""
    value = headers.get(b"traceparent")
    return value.decode() if value is not None and _TRACEPARENT.fullmatch(value) else None


class Listener:
    """The outermost layer of a listener: counts answers, and turns every error into a problem."""

    def __init__(self, name: str, app: ASGIApp) -> None:
        self._app = app
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        # Starlette's routes raise, rather than answer in plain text, below something called app.
        scope["app"] = self
        status = 0

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counting)
        except ClientGone:
            return
        except Exception as error:
            if status:
                raise
            await send_problem(counting, problem_of(error))
        finally:
            metrics.count_request(self._name, status)


class Application:
    """A coroutine function as an ASGI application: Starlette's routes take bare ones for views."""

    def __init__(self, serve: Endpoint) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._serve(scope, receive, send)


def by_path(
    endpoints: dict[str, Endpoint], *, any_method: dict[str, Endpoint] | None = None
) -> ASGIApp:
    """An application of exact paths, each for POST alone; the rest is 404 or 405.

    Endpoints of `any_method` see to their methods themselves.
    """
    others = any_method or {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if (other := others.get(scope["path"])) is not None:
            await other(scope, receive, send)
            return
        endpoint = endpoints.get(scope["path"])
        if endpoint is None:
            raise Refused(404, "Not Found", f"there is nothing at {scope['path']}")
        if scope["method"] != "POST":
            raise Refused(
                405, "Method Not Allowed", "this takes POST only", headers={"Allow": "POST"}
            )
        await endpoint(scope, receive, send)

    return app
