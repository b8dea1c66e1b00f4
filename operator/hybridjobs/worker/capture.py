"""Keeps what a handler writes to standard output and standard error, down to the descriptors."""

import contextlib
import os
import secrets
import sys
from threading import Event, Thread

MAX_LOG_TAIL_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024


class OutputCapture:
    """Takes descriptors 1 and 2 over: their output goes to the tail of a run while one is on.

    Between runs it goes where standard error went before. Output is read by a thread of its own,
    so that a handler which never gives the event loop back cannot fill the pipe and hang.
    """

    def __init__(self) -> None:
        self._outside = os.dup(2)
        reading, writing = os.pipe()
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        self._writing = writing
        self._reading = reading
        self._tail = bytearray()
        self._mark: bytes | None = None
        self._marked = Event()
        self._running = False
        Thread(target=self._read, name="hybridjobs-output", daemon=True).start()

    def begin(self) -> None:
        """A run begins: what was written before is none of it."""
        self._drain()
        self._running = True

    def end(self) -> str:
        """The run is over: the last MAX_LOG_TAIL_BYTES of what it wrote, as printable text."""
        self._drain()
        self._running = False
        tail = bytes(self._tail[-MAX_LOG_TAIL_BYTES:])
        self._tail.clear()
        return tail.decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")

    def _drain(self) -> None:
        """Return when everything written so far has been read: a mark follows it down the pipe."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # a handler may have put anything there
                stream.flush()
        self._marked.clear()
        mark = self._mark = secrets.token_bytes(16)
        os.write(self._writing, mark)
        self._marked.wait()

    def _read(self) -> None:
        pending = b""
        while chunk := os.read(self._reading, _CHUNK_BYTES):
            pending += chunk
            mark = self._mark
            found = pending.find(mark) if mark is not None else -1
            if mark is not None and found >= 0:
                self._keep(pending[:found])
                pending = pending[found + len(mark) :]
                self._mark = None
                self._marked.set()
                continue
            # The end may be the beginning of a mark.
            held = 0 if mark is None else min(len(mark) - 1, len(pending))
            self._keep(pending[: len(pending) - held])
            pending = pending[len(pending) - held :]

    def _keep(self, output: bytes) -> None:
        if self._running:
            self._tail += output
            if len(self._tail) > 2 * MAX_LOG_TAIL_BYTES:
                del self._tail[:-MAX_LOG_TAIL_BYTES]
        elif output:
            os.write(self._outside, output)
