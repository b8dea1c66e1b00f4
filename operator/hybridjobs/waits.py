"""Waiting for an event, though not for ever."""

import asyncio


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event is set, now or within so many seconds."""
    try:
        # Not wait_for: before Python 3.12 it can swallow a cancel that comes with the event.
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
