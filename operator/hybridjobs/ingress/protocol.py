"""HTTP/1.1 with a clock on every request: head and body must arrive whole, in time, within bounds.

uvicorn bounds neither the time nor the size of a request's head, and leaves slow bodies to the
application. Here one timer serves both, set only while a request is incomplete, so that one that
arrives in one piece costs nothing.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hybridjobs.ingress.problems import MEDIA_TYPE, Problem

MAX_HEAD_BYTES = 64 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, bounded; made by `bounded`."""

    request_timeout_seconds: float
    _incomplete = False
    _in_head = False
    _head_bytes = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client that connects and says nothing is one whose request never completes."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then see whether it is in the middle of a request."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                detail = f"the request's head is over the limit of {MAX_HEAD_BYTES} bytes"
                self._refuse(Problem(431, "Request Header Fields Too Large", detail))
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
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of it is here."""
        self._incomplete = False
        super().on_message_complete()

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.request_timeout_seconds, self._out_of_time)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

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
            body = problem.body()
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n%s"
                % (problem.status, problem.title.encode(), MEDIA_TYPE, len(body), body)
            )
        self.transport.close()


def bounded(request_timeout_seconds: float) -> type[BoundedProtocol]:
    """The protocol with this bound on the time from a request's first byte to its last."""

    class Bounded(BoundedProtocol):
        pass

    Bounded.request_timeout_seconds = request_timeout_seconds
    return Bounded
