"""Waiting, though not for ever."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event is set, now or within so many seconds."""
    try:
        # Not wait_for: before Python 3.12 it can swallow a cancel that comes with the event.
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def result_within(work: Coroutine[Any, Any, Result], seconds: float) -> Result:
    """What the work returns or raises; TimeoutError where it takes longer, and it then goes on.

    A cancel would not do: psycopg waits for the server's word on that, which may never come.
    """
    return await ended_within(asyncio.create_task(work), seconds)


async def ended_within(task: asyncio.Task[Result], seconds: float) -> Result:
    """As `result_within`, of a task that several may wait for."""
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        task.add_done_callback(_forget)
        raise TimeoutError
    return task.result()


def _forget(task: asyncio.Task[Any]) -> None:
    """Nobody is left to be told of its error."""
    if not task.cancelled():
        task.exception()
