"""How much of Inngest's calls the SDK has in hand at once: twelve bytes or more for each of one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hybridjobs.errors import Unavailable

MAX_BYTES = 8 * 1024 * 1024
MAX_WAITING_BYTES = 64 * 1024 * 1024


class Room:
    """Room for bodies of `at_most` bytes together, or one of any size; first come, first served.

    Those that wait are bounded too, by `waiting` bytes.
    """

    def __init__(self, *, at_most: int = MAX_BYTES, waiting: int = MAX_WAITING_BYTES) -> None:
        self._at_most = at_most
        self._max_waiting = waiting
        self._held = self._waiting = 0
        self._line = asyncio.Lock()
        self._left = asyncio.Event()

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[None]:
        """Inside, there is room for the body. Unavailable (503) where too many wait for it."""
        if self._waiting + size > self._max_waiting:
            raise Unavailable("too many large calls at once", retry_after=5)
        self._waiting += size
        try:
            async with self._line:
                while self._held and self._held + size > self._at_most:
                    self._left.clear()
                    await self._left.wait()
                self._held += size
        finally:
            self._waiting -= size
        try:
            yield
        finally:
            self._held -= size
            self._left.set()
