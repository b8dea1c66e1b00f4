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


async def test_what_is_only_listed_stands_behind_what_happened() -> None:
    queue = WorkQueue()
    for key in ("a", "b", "c"):
        queue.add(key, behind=True)
    queue.add("d")
    queue.add("c")
    queue.add("c", behind=True)
    assert len(queue) == 4
    assert [await queue.get() for _ in range(4)] == ["d", "c", "a", "b"]


async def test_a_key_that_came_to_the_front_is_worked_on_once() -> None:
    queue = WorkQueue()
    queue.add("a", behind=True)
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a", behind=True)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.01)
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.01)


async def test_a_time_that_was_set_stands_though_the_key_is_listed() -> None:
    queue = WorkQueue()
    queue.add_after("b", 0.01)
    queue.add("a")
    queue.add("b", behind=True)
    await asyncio.sleep(0.02)
    queue.add("c")
    assert [await queue.get() for _ in range(3)] == ["a", "b", "c"]


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
