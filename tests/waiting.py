"""Waiting for what no event tells."""

import asyncio
from collections.abc import Callable
from typing import Any


async def eventually(holds: Callable[[], Any]) -> None:
    """Until it holds; TimeoutError after 20 s."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - there is none
            await asyncio.sleep(0.02)
