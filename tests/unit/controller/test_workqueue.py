import asyncio

import pytest

from hybridjobs.controller.workqueue import WorkQueue


async def test_a_key_waits_once() -> None:
    queue = WorkQueue()
    for _ in range(3):
        queue.add("a")
    queue.add("b")
    assert len(queue) == 2
    assert [await queue.get(), await queue.get()] == ["a", "b"]


async def test_a_key_added_while_worked_on_comes_once_more_afterwards() -> None:
    queue = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.01)
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_the_earliest_time_counts() -> None:
    queue = WorkQueue()
    queue.add_after("a", 3600)
    queue.add_after("a", 0.01)
    queue.add_after("a", 3600)
    assert await asyncio.wait_for(queue.get(), 5) == "a"
    queue.done("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.05)


async def test_failures_back_off_and_are_forgotten() -> None:
    queue = WorkQueue()
    assert [queue.retry("a") for _ in range(3)] == [0.2, 0.4, 0.8]
    assert max(queue.retry("a") for _ in range(50)) == 60
    queue.succeeded("a")
    assert queue.retry("a") == 0.2
