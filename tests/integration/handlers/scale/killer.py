"""Kills workers of a `hybridjobs dev`, at moments and in an order that a seed decides."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

_WORKER = b"hybridjobs.dev.worker"


@asynccontextmanager
async def killing(
    parent: int, seed: int, every_seconds: float, at_most: int
) -> AsyncIterator[list[int]]:
    """While inside, end some of the parent's workers now and then; who was killed, by pid.

    The pauses are between half and one and a half times `every_seconds`.
    """
    killed: list[int] = []
    chance = random.Random(seed)

    async def kill() -> None:
        while len(killed) < at_most:
            await asyncio.sleep(every_seconds * chance.uniform(0.5, 1.5))
            if running := workers(parent):
                pid = chance.choice(running)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    task = asyncio.create_task(kill())
    try:
        yield killed
    finally:
        task.cancel()


def workers(parent: int) -> list[int]:
    """The processes of the parent that run a job each."""
    return sorted(
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and _is_worker(folder, parent)
    )


def _is_worker(folder: Path, parent: int) -> bool:
    try:
        # The name, which may hold anything, ends with the last bracket.
        _, parent_pid = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        return int(parent_pid) == parent and _WORKER in (folder / "cmdline").read_bytes()
    except OSError:
        return False
