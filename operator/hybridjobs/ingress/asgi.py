"""What every listener does to a request, as plain ASGI: read its body within bounds, answer, count.

Starlette's Request and Response are left aside where they cost: the webhooks' path answers
thousands of requests a second.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hybridjobs.errors import InvalidInput, PayloadTooLarge
from hybridjobs.ingress.metrics import Metrics
from hybridjobs.ingress.problems import ClientGone, Refused, problem_of, send_problem

Header = tuple[bytes, bytes]
Endpoint = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON = (b"content-type", b"application/json")


async def read_body(
    scope: Scope, receive: Receive, *, limit_bytes: int, timeout_seconds: float
) -> bytes:
    """The request's body, whole.

    PayloadTooLarge (413) as soon as Content-Length or the bytes so far exceed `limit_bytes`,
    InvalidInput (408) when it is not complete in time, ClientGone when it never will be.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > limit_bytes:
            raise _too_large(limit_bytes)
    try:
        async with asyncio.timeout(timeout_seconds):
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                body: bytes = message.get("body", b"")
                if len(body) > limit_bytes:
                    raise _too_large(limit_bytes)
                return body
            return await _rest(message, receive, limit_bytes)
    except TimeoutError:
        raise InvalidInput(
            f"the body did not arrive within {timeout_seconds:g} seconds", status=408
        ) from None


async def _rest(message: Message, receive: Receive, limit_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone("the client hung up")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks)
        message = await receive()


def _too_large(limit_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is over the limit of {limit_bytes} bytes")


async def respond(
    send: Send, status: int, body: bytes = b"", *, headers: Iterable[Header] = (JSON,)
) -> None:
    """Answer with a whole body; a 204 has neither body nor headers."""
    fields = [] if status == 204 else [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


class Listener:
    """The outermost layer of a listener: counts answers, and turns every error into a problem."""

    def __init__(self, name: str, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
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
            status = 499  # nginx's number for it; nobody reads it but the metrics
        except Exception as error:
            if status:
                raise
            await send_problem(counting, problem_of(error))
        finally:
            self._metrics.request(self._name, status)


def by_path(endpoints: dict[str, Endpoint]) -> ASGIApp:
    """An application of exact paths, each for POST alone; the rest is 404 or 405."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = endpoints.get(scope["path"])
        if endpoint is None:
            raise Refused(404, "Not Found", f"there is nothing at {scope['path']}")
        if scope["method"] != "POST":
            raise Refused(
                405, "Method Not Allowed", "this takes POST only", headers={"Allow": "POST"}
            )
        await endpoint(scope, receive, send)

    return app
