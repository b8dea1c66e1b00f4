"""What every listener does to a request, as plain ASGI: read its body within bounds, answer, count.

Starlette's Request and Response are left aside where they cost: the webhooks' path answers
thousands of requests a second.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hybridjobs.errors import PayloadTooLarge, Unavailable
from hybridjobs.ingress import metrics
from hybridjobs.ingress.problems import ClientGone, Refused, problem_of, send_problem
from hybridjobs.ingress.protocol import WHOLE
from hybridjobs.tracing import TRACEPARENT

Header = tuple[bytes, bytes]
Whole = Callable[[int, Iterable[Header], bytes], bool]
Endpoint = Callable[[Scope, Receive, Send], Awaitable[None]]

# What clients, unauthenticated ones too, may make us hold of bodies, until their requests have been
# answered.
MAX_HELD_BYTES = 128 * 1024 * 1024
_held_bytes = 0

PLACE = "hybridjobs.place"
JSON = (b"content-type", b"application/json")


async def read_body(scope: Scope, receive: Receive, *, limit_bytes: int) -> bytes:
    """The request's body, whole; the time it may take is BoundedProtocol's to bound.

    Refused (415) for one that is encoded, as by gzip: it is read, and verified, as it was sent.
    PayloadTooLarge (413) as soon as Content-Length or the bytes so far exceed `limit_bytes`,
    Unavailable (503) when bodies hold too much memory together, or when it is whole and too many
    others are in work; ClientGone when the rest will never come.
    """
    place: Place = scope[PLACE]
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > limit_bytes:
            place.unread = receive
            raise _too_large(limit_bytes)
        if name == b"content-encoding" and value.strip().lower() != b"identity":
            raise Refused(
                415,
                "Unsupported Media Type",
                "the body is read as it is: send it without Content-Encoding",
                headers={"Accept-Encoding": "identity"},
            )
    place.give_back()  # while it waits for its client
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client hung up")
        chunk: bytes = message["body"]
        size += len(chunk)
        if size > limit_bytes:
            place.unread = receive if message["more_body"] else None
            raise _too_large(limit_bytes)
        place.hold(len(chunk))
        if not message["more_body"]:
            place.take()
            return b"".join((*chunks, chunk)) if chunks else chunk
        chunks.append(chunk)


def _too_large(limit_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is over the limit of {limit_bytes} bytes")


async def respond(
    send: Send, status: int, body: bytes = b"", *, headers: Iterable[Header] = (JSON,)
) -> None:
    """Answer with a whole body; a 204 has neither body nor headers."""
    fields = [] if status == 204 else [*headers, (b"content-length", b"%d" % len(body))]
    if isinstance(send, Reply) and send.whole(status, fields, body):
        return
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def traceparent(headers: dict[bytes, bytes]) -> str | None:
    """The caller's trace context (W3C Trace Context); None where there is none that is valid."""
    value = headers.get(b"traceparent")
    return value.decode() if value is not None and TRACEPARENT.fullmatch(value) else None


def bearer_token(authorization: bytes) -> bytes | None:
    """The token of an Authorization header (RFC 6750); None for another scheme, or no header."""
    scheme, _, token = authorization.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else None


class Places:
    """How many requests a listener works on at once. Those that wait for their client have none."""

    def __init__(self, at_most: int) -> None:
        self.at_most = at_most
        self.taken = 0


class Place:
    """One request's place among them, taken or not, and the bytes of its body.

    `unread` gives the rest of a body that is not wanted.
    """

    __slots__ = ("_held_bytes", "_is_taken", "_places", "unread")

    def __init__(self, places: Places) -> None:
        self.unread: Receive | None = None
        self._places = places
        self._is_taken = False
        self._held_bytes = 0

    def hold(self, size: int) -> None:
        """So many bytes more of its body are here; Unavailable (503) where that is too much."""
        global _held_bytes  # noqa: PLW0603 - one process, one memory
        self._held_bytes += size
        _held_bytes += size
        if _held_bytes > MAX_HELD_BYTES:
            raise Unavailable("too many large requests at once", retry_after=2)

    def leave(self) -> None:
        """The request is over, or nothing is left of it but its answer."""
        global _held_bytes  # noqa: PLW0603
        self.give_back()
        _held_bytes -= self._held_bytes
        self._held_bytes = 0

    def take(self) -> None:
        """Work on the request; Unavailable (503) where there are too many."""
        if self._is_taken:
            return
        if self._places.taken >= self._places.at_most:
            raise Unavailable("too many requests at once", retry_after=1)
        self._places.taken += 1
        self._is_taken = True

    def give_back(self) -> None:
        """Leave the place to another request."""
        if self._is_taken:
            self._places.taken -= 1
            self._is_taken = False


@contextmanager
def waiting(scope: Scope) -> Iterator[None]:
    """Inside, the request takes no place, as it only waits; after it, Unavailable as by `take`.

    Whoever waits has let go of the request's body.
    """
    place: Place = scope[PLACE]
    place.leave()
    yield
    place.take()


def without_place(scope: Scope) -> None:
    """From here on the request takes no place: its answer has no end, and is bounded elsewhere."""
    place: Place = scope[PLACE]
    place.give_back()


class Reply:
    """ASGI's `send` of one request, which knows the status sent; 0: none yet."""

    __slots__ = ("_send", "_whole", "status")

    def __init__(self, scope: Scope, send: Send) -> None:
        self.status = 0
        self._send = send
        self._whole: Whole | None = scope.get("extensions", {}).get(WHOLE, {}).get("answer")

    async def __call__(self, message: Message) -> None:
        """Send a message of ASGI."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    def whole(self, status: int, headers: Iterable[Header], body: bytes) -> bool:
        """Answer in one write, where the server can; False: it is to be sent as messages."""
        if self._whole is None or not self._whole(status, headers, body):
            return False
        self.status = status
        return True


class Listener:
    """The outermost layer of a listener: bounds its work, counts answers, makes errors problems."""

    def __init__(self, name: str, app: ASGIApp, *, max_in_flight: int) -> None:
        self._app = app
        self._name = name
        self._places = Places(max_in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        # Starlette's routes raise, rather than answer in plain text, below something called app.
        scope["app"] = self
        reply = Reply(scope, send)
        place = scope[PLACE] = Place(self._places)
        try:
            place.take()
            await self._app(scope, receive, reply)
        except ClientGone:
            return
        except Exception as error:
            if reply.status:
                raise
            place.leave()
            await send_problem(reply, problem_of(error), unread=place.unread)
        finally:
            place.leave()
            metrics.count_request(self._name, reply.status)


class Application:
    """A coroutine function as an ASGI application: Starlette's routes take bare ones for views."""

    def __init__(self, serve: Endpoint) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._serve(scope, receive, send)


async def nothing_here(scope: Scope, _receive: Receive, _send: Send) -> None:
    """The endpoint of every other path: Refused (404)."""
    raise Refused(404, "Not Found", f"there is nothing at {scope['path']}")


def by_path(endpoints: Mapping[str, Mapping[str, Endpoint]]) -> ASGIApp:
    """An application of paths, each with its endpoints by method; the rest is 404 or 405.

    A path that ends in / stands for those with one more segment.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        methods = endpoints.get(path) or endpoints.get(path[: path.rfind("/") + 1])
        if methods is None:
            await nothing_here(scope, receive, send)
            return
        endpoint = methods.get(scope["method"])
        if endpoint is None:
            allowed = ", ".join(methods)
            raise Refused(
                405, "Method Not Allowed", f"this takes {allowed} only", headers={"Allow": allowed}
            )
        await endpoint(scope, receive, send)

    return app
