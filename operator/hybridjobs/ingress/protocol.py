"""HTTP/1.1 with a clock on every request, and bounds on heads, connections and unread answers.

uvicorn bounds neither the time nor the size of a request's head, and leaves slow bodies to the
application. Here one timer serves both, set only while a request is incomplete, so that one that
arrives in one piece costs nothing.

A listener that has all the connections it may have gives up the one that has kept it waiting
longest: silent, idle between requests, or slow to send one. So connections that are only held open
keep nobody out, and a request that arrives is served, however many they are.
"""

import asyncio
import sys
from collections.abc import Iterable
from functools import partial
from weakref import ref

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from hybridjobs.ingress.problems import MEDIA_TYPE, Problem

MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100

# An extension of ASGI: its `answer(status, headers, body) -> bool` writes a whole answer at once.
WHOLE = "hybridjobs.whole"

_UNREAD_SECONDS = 60.0  # that a client may leave an answer unread
_UNREAD_AT_END_SECONDS = 2.0  # when the process ends
_IDLE_AT_END_SECONDS = 2.0
_HEAD_TOO_LARGE = Problem(
    431,
    "Request Header Fields Too Large",
    f"the request's head is over the limit of {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} headers",
)
_NO_HTTP = Problem(400, "Bad Request", "this is not a request of HTTP/1.1")
_CROWDED = Problem(
    503,
    "Unavailable",
    "too many connections: this one was waited for the longest",
    headers=((b"retry-after", b"1"),),
)


class _HeadTooLarge(Exception):  # noqa: N818 - the way out of the parser
    pass


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, bounded; made by `bounded`.

    `waiting` are the listener's connections whose client is to move next, the longest first.
    """

    request_timeout_seconds: float
    max_connections: int
    waiting: dict["BoundedProtocol", None]
    _fault = _NO_HTTP
    _received = b""
    _again = b""
    _follows_another = False
    _incomplete = False
    _in_head = False
    _head_bytes = 0
    _timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None
    _unread_seconds = _UNREAD_SECONDS
    _is_ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client that connects and says nothing is one whose request never completes."""
        super().connection_made(transport)
        self._start_timer()
        if len(self.connections) > self.max_connections:
            next(iter(self.waiting), self)._give_up()
        if not transport.is_closing():
            self.waiting[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self.waiting.pop(self, None)
        self._stop_timer()
        self._stop_unread_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then see whether it is in the middle of a request."""
        self._again = data
        while self._again:
            self._received, self._again = self._again, b""
            self._follows_another = False
            super().data_received(self._received)
        # After another request, it is not known how much of the data is the head's.
        size = 0 if self._follows_another else len(self._received)
        self._received = b""
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += size
            if self._head_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
                self._refuse(_HEAD_TOO_LARGE)
                return
        if not self._incomplete:
            if self._timer is not None:
                self._stop_timer()
        elif self._timer is None:
            self._start_timer()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._incomplete = self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head is whole."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._fault = _HEAD_TOO_LARGE
            raise _HeadTooLarge
        self._in_head = False
        super().on_headers_complete()
        if self.cycle is None:
            return  # the connection's first head has Upgrade, and comes again
        if self._is_ending:
            self.cycle.keep_alive = False
        # Weakly: the cycle holds the scope, and what holds itself stays, with its body, until a
        # collection finds it.
        self.scope["extensions"] = {WHOLE: {"answer": partial(_answer_whole, ref(self.cycle))}}

    def on_message_complete(self) -> None:
        """All of it is here."""
        self._incomplete = False
        self._follows_another = True
        if self.parser.should_upgrade() and self._should_upgrade():
            return  # its head alone, which comes again
        if not self.cycle.response_complete:
            self.waiting.pop(self, None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The client is to move next, unless it has sent another request already."""
        is_next_here = bool(self.pipeline)
        super().on_response_complete()
        if not is_next_here and not self.transport.is_closing():
            self.waiting[self] = None

    def _should_upgrade(self) -> bool:
        """The parser reads no body after a head with Upgrade, which Java's client sends by itself.

        CONNECT is no upgrade: it has no body, and is answered as any other method.
        """
        return bool(self.parser.get_method() != b"CONNECT")

    def handle_websocket_upgrade(self) -> None:
        """Serve the request as the HTTP/1.1 that it is (RFC 9110, 7.8): there is no other protocol.

        Its head goes to a new parser, without the header, and then what follows.
        """
        upgrade = sys.exc_info()[1]
        assert isinstance(upgrade, httptools.HttpParserUpgrade)
        head = [b"%s %s HTTP/1.1\r\n" % (self.parser.get_method(), self.url)]
        head += [
            b"%s: %s\r\n" % (name, value) for name, value in self.headers if name != b"upgrade"
        ]
        self._again = b"".join((*head, b"\r\n", self._received[upgrade.args[0] :]))
        self.parser = httptools.HttpRequestParser(self)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words, not ours
        """The parser refuses what was sent."""
        self._answer(self._fault)
        self.transport.close()

    def pause_writing(self) -> None:
        """The client does not read its answer: not for ever."""
        super().pause_writing()
        self._start_unread_timer()

    def resume_writing(self) -> None:
        """It reads."""
        self._stop_unread_timer()
        super().resume_writing()

    def shutdown(self) -> None:
        """The process ends: who does not read does not hold that up.

        A client that keeps its connection may be sending at this moment, and a webhook on a
        connection that closes is lost; it is answered, and told to connect anew.
        """
        self._unread_seconds = _UNREAD_AT_END_SECONDS
        if self._unread_timer is not None:
            self._stop_unread_timer()
            self._start_unread_timer()
        self._is_ending = True
        if self._is_idle:
            self.loop.call_later(_IDLE_AT_END_SECONDS, self._end_idle)
        else:
            super().shutdown()

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _end_idle(self) -> None:
        if self._is_idle and not self._incomplete:
            self.transport.close()

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.request_timeout_seconds, self._out_of_time)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start_unread_timer(self) -> None:
        self._unread_timer = self.loop.call_later(self._unread_seconds, self.transport.abort)

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _give_up(self) -> None:
        self.waiting.pop(self, None)
        self._refuse(_CROWDED)

    def _out_of_time(self) -> None:
        if self.flow.read_paused:
            self._start_timer()  # it is we who do not read
            return
        self._timer = None
        detail = f"the request was not complete within {self.request_timeout_seconds:g} seconds"
        self._refuse(Problem(408, "Request Timeout", detail))

    def _refuse(self, problem: Problem) -> None:
        answered = self.cycle is not None and self.cycle.response_started
        if self._incomplete and (self._in_head or not answered):
            self._answer(problem)
        self.transport.close()

    def _answer(self, problem: Problem) -> None:
        body = problem.body()
        headers = b"".join(b"%s: %s\r\n" % header for header in problem.headers)
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\n"
            b"%sconnection: close\r\n\r\n%s"
            % (problem.status, problem.title.encode(), MEDIA_TYPE, len(body), headers, body)
        )


def _answer_whole(
    request: ref[RequestResponseCycle],
    status: int,
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
) -> bool:
    """Answer in one write, where ASGI's two messages are two; False: nothing was written.

    The headers are ours: neither checked nor in need of it, and Content-Length among them.
    """
    cycle = request()
    if (
        cycle is None
        or cycle.response_started
        or cycle.disconnected
        or cycle.flow.write_paused
        or cycle.scope["method"] == "HEAD"
    ):
        return False
    parts = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        parts += (name, b": ", value, b"\r\n")
    if not cycle.keep_alive:
        parts.append(b"connection: close\r\n")
    parts += (b"\r\n", body)
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join(parts))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


def bounded(request_timeout_seconds: float, *, max_connections: int) -> type[BoundedProtocol]:
    """The protocol of one listener.

    The time runs from a request's first byte to its last.
    """

    class Bounded(BoundedProtocol):
        pass

    Bounded.request_timeout_seconds = request_timeout_seconds
    Bounded.max_connections = max_connections
    Bounded.waiting = {}
    return Bounded
