"""Work on large texts, out of the way of the loop, in which all others wait for it."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

_LARGE = 64 * 1024  # from here on it takes milliseconds


async def aside(size: int, work: Callable[[], Result]) -> Result:
    """What the work returns, on so many bytes or characters: of a large text, in a thread."""
    return work() if size < _LARGE else await asyncio.to_thread(work)
