"""One warm child process that runs quick handlers: started, spoken to in frames, killed.

A frame is 4 bytes of length, big-endian, then JSON (the contract of `hybridjobs.worker.child`).
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self

from hybridjobs import codec
from hybridjobs.errors import HybridJobsError

START_SECONDS = 30.0
_END_SECONDS = 2.0
_LENGTH_BYTES = 4
_MAX_FRAME_BYTES = 64 * 1024 * 1024
_BUFFER_BYTES = 1024 * 1024
_PSS = re.compile(r"^Pss:\s+([0-9]+) kB", re.MULTILINE)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# What a Python process needs to come up as ours did; everything else of our environment, and with
# it every secret, stays here.
_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV")


class ChildDied(HybridJobsError):  # noqa: N818 - an event, named as one
    """The child ended, or broke the protocol, before it had answered."""


class Child:
    """A running child; `handlers` are the names it was started for."""

    def __init__(self, process: asyncio.subprocess.Process, handlers: tuple[str, ...]) -> None:
        self._process = process
        self.handlers = handlers
        self.busy = False
        self.runs = 0
        self.epoch = 0  # of the pool that it was started for
        self._killed = False
        self.exited = asyncio.create_task(process.wait())

    @classmethod
    async def start(cls, handlers: Iterable[str], environment: Mapping[str, str]) -> Self:
        """A child that is warm; ChildDied when it ends instead, or takes too long."""
        names = tuple(handlers)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "hybridjobs.worker.child",
            *names,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**_inherited(), **environment},
            start_new_session=True,
            limit=_BUFFER_BYTES,
        )
        child = cls(process, names)
        try:
            async with asyncio.timeout(START_SECONDS):
                await child.receive()
        except TimeoutError:
            await child.end()
            raise ChildDied(f"not ready within {START_SECONDS:g} seconds") from None
        except BaseException:
            await child.end()
            raise
        return child

    @property
    def pid(self) -> int:
        """The process id, which is also its group's."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs, and may go on."""
        return not self._killed and self._process.returncode is None

    def memory_bytes(self) -> int:
        """What it holds of the machine's memory (resident set), with what the processes that it has
        started hold alone, or their share of it; 0 once it is dead.
        """
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * _PAGE_BYTES + sum(map(_share_bytes, _descendants(self._process.pid)))

    def cpu_seconds(self) -> float:
        """What it has used of the processors since its start; 0 once it is dead."""
        try:
            text = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return 0
        # Its name, in parentheses, may hold anything (proc(5)).
        user, system = text[text.rindex(")") :].split()[12:14]
        return (int(user) + int(system)) / _TICKS_PER_SECOND

    async def send(self, text: str) -> None:
        """Send one JSON text."""
        body = text.encode()
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.writelines((len(body).to_bytes(_LENGTH_BYTES), body))
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise await self._dead() from None

    async def receive(self) -> dict[str, str]:
        """The next frame's members, each as its JSON text; ChildDied where there is none."""
        stdout = self._process.stdout
        assert stdout is not None
        try:
            length = int.from_bytes(await stdout.readexactly(_LENGTH_BYTES))
            if length > _MAX_FRAME_BYTES:
                raise ChildDied(f"sent a frame of {length} bytes")
            return codec.members((await stdout.readexactly(length)).decode())
        except asyncio.IncompleteReadError:
            raise await self._dead() from None
        except ValueError as error:
            raise ChildDied(f"sent what is no frame: {error}") from None

    def kill(self) -> None:
        """End it and whatever it has started, at once."""
        self._killed = True
        # Those of a session of their own are no part of its group.
        others = list(_descendants(self._process.pid)) if self._process.returncode is None else []
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pid in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def end(self) -> None:
        """Close its input, which ends an idle child; kill it if that does not."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(asyncio.shield(self.exited), _END_SECONDS)
        except TimeoutError:
            pass
        finally:
            self.kill()
        await self.exited

    async def _dead(self) -> ChildDied:
        # Its output may be closed while it lives on: it is of no use then.
        self.kill()
        code = await self.exited
        if code < 0:
            return ChildDied(f"killed by {signal.Signals(-code).name}")
        return ChildDied(f"exited with code {code}")


def _descendants(pid: int) -> Iterator[int]:
    threads: list[Path] = []
    with contextlib.suppress(OSError):  # it has just ended
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    for thread in threads:
        children: list[int] = []
        with contextlib.suppress(OSError):
            children = [int(each) for each in (thread / "children").read_text().split()]
        for child in children:
            yield child
            yield from _descendants(child)


def _share_bytes(pid: int) -> int:
    """A process' memory, what it shares with others divided among them (proc(5), smaps: Pss)."""
    try:
        found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def _inherited() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith("PYTHON")
    }
