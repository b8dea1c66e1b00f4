"""The room for calls: bounded, first come, first served, given back whatever happens."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from hybridjobs.errors import Unavailable
from hybridjobs.ingress.inngest.room import Room


async def held(room: Room, size: int, log: list[int], release: asyncio.Event) -> None:
    async with room.take(size):
        log.append(size)
        await release.wait()


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_does_not_fit_waits_in_line_and_so_does_what_came_after_it() -> None:
    room, log = Room(at_most=10), list[int]()
    first, rest = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(held(room, 6, log, first))
        for size in (5, 4, 1):
            tasks.create_task(held(room, size, log, rest))
        await turns()
        assert log == [6]
        first.set()
        await turns()
        assert log == [6, 5, 4, 1]
        rest.set()


async def test_one_alone_may_be_of_any_size() -> None:
    async with asyncio.timeout(1), Room(at_most=10).take(50):
        pass


async def test_too_many_that_wait_are_refused() -> None:
    room, log, release = Room(at_most=10, waiting=15), list[int](), asyncio.Event()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(room.take(10))
        waits = asyncio.create_task(held(room, 10, log, release))
        await turns()
        with pytest.raises(Unavailable):
            await stack.enter_async_context(room.take(6))
        waits.cancel()
        await asyncio.wait([waits])
    async with asyncio.timeout(1), room.take(10):
        pass
    assert log == []
