"""One local process that runs a job: its start, its log, its end."""

import asyncio
import contextlib
import os
import signal
from codecs import getincrementaldecoder
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from hybridjobs.exits import MAX_TERMINATION_MESSAGE_BYTES
from hybridjobs.model import MAX_LOG_TAIL_BYTES

_CHUNK_BYTES = 64 * 1024
_MAX_LINE = 64 * 1024  # characters; one without an end is shown in parts
_LAST_OUTPUT_SECONDS = 1.0
_FALLBACK_BYTES = 2048  # as the kubelet takes of the log instead of a termination message


class JobProcess:
    """A running process, the first of a group of its own; `show` is given its output by lines."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        termination_log: Path,
        show: Callable[[str], None],
    ) -> None:
        self._process = process
        self._termination_log = termination_log
        self._show = show
        self._tail = bytearray()
        self._reading = asyncio.create_task(self._read())
        self.exited = asyncio.create_task(process.wait())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        termination_log: Path,
        show: Callable[[str], None],
    ) -> Self:
        """Start it; OSError where that cannot be. Its standard input ends with this process."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
        return cls(process, termination_log, show)

    async def end(self, grace_seconds: float) -> None:
        """Ask it to end, as the kubelet does, and see to it after the grace period."""
        self._signal(signal.SIGTERM)
        await asyncio.wait([self.exited], timeout=grace_seconds)
        if not self.exited.done():
            self.kill()
        await asyncio.wait([self.exited])

    def kill(self) -> None:
        """End it, and what it has started, at once."""
        self._signal(signal.SIGKILL)

    async def exit_code(self) -> int:
        """Once it has ended, and its log is whole; of a signal 128 and its number, as a shell."""
        code = await self.exited
        await asyncio.wait([self._reading], timeout=_LAST_OUTPUT_SECONDS)
        self.kill()  # what it has left behind, which may hold its output open
        await asyncio.wait([self._reading], timeout=_LAST_OUTPUT_SECONDS)
        self._reading.cancel()
        return code if code >= 0 else 128 - code

    @property
    def log_tail(self) -> str:
        """The end of its output."""
        text = self._tail.decode("utf-8", "replace").encode()
        return text[-MAX_LOG_TAIL_BYTES:].decode("utf-8", "ignore")

    def message(self, exit_code: int) -> str | None:
        """The termination message, of a long one its end; of a failure without one, the log's."""
        try:
            with self._termination_log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_TERMINATION_MESSAGE_BYTES))
                text = file.read(MAX_TERMINATION_MESSAGE_BYTES).decode("utf-8", "replace")
        except OSError:
            text = ""
        if not text and exit_code:
            text = self._tail[-_FALLBACK_BYTES:].decode("utf-8", "replace")
        return text or None

    async def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        rest = ""
        decoder = getincrementaldecoder("utf-8")("replace")
        while chunk := await stdout.read(_CHUNK_BYTES):
            self._tail += chunk
            del self._tail[:-MAX_LOG_TAIL_BYTES]
            *lines, rest = (rest + decoder.decode(chunk)).split("\n")
            if len(rest) > _MAX_LINE:
                lines, rest = [*lines, rest], ""
            for line in lines:
                self._show(line)
        if rest:
            self._show(rest)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
