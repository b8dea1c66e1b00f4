"""Waiting for what no event tells."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any


async def eventually(holds: Callable[[], Any], *, seconds: float = 30) -> Any:
    """What it gives, or what that gives when it is awaited, once it is true; else TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            found = holds()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.02)


def until(holds: Callable[[], Any]) -> None:
    """As `eventually`, in what is not asynchronous, and for a minute."""
    give_up = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up, "it never came true"
        time.sleep(0.2)
