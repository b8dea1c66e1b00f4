"""The load that every queue of `make bench-queue` is put under; standard library only.

The peers run it in a Python of their own, so nothing of ours may be needed here.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

Measured = dict[str, float]

OUTSTANDING = 2000  # jobs between their enqueue and their end, in a round trip
_WARM_SECONDS = 1.0


def payload(number: int) -> dict[str, object]:
    """What a job carries: of the size of a small event."""
    return {
        "number": number,
        "action": "synchronize",
        "repository": {"id": 1_000 + number % 50, "full_name": f"bench/repository-{number % 50}"},
        "pull_request": {"number": number % 5_000, "head": f"{number:040x}", "draft": False},
    }


# The same by SQL, for rows made there: `number` is a column of integers.
PAYLOAD_SQL = """json_build_object(
    'number', number, 'action', 'synchronize',
    'repository', json_build_object(
        'id', 1000 + mod(number, 50), 'full_name', 'bench/repository-' || mod(number, 50)),
    'pull_request', json_build_object(
        'number', mod(number, 5000), 'head', lpad(to_hex(number), 40, '0'), 'draft', false))"""


class Queue(Protocol):
    """One of the queues compared. `url` is a database of its own."""

    async def prepare(self, rows: int) -> None:
        """The schema if it is not there, and exactly `rows` waiting jobs."""

    async def enqueue(self, seconds: float) -> Measured:
        """As many jobs as it durably takes."""

    async def roundtrip(self, seconds: float) -> Measured:
        """As many jobs as it enqueues, claims and completes, durably, all at once."""


def percentiles(latencies: Sequence[float]) -> Measured:
    """In milliseconds, of seconds."""
    if not latencies:
        return {}
    ordered = sorted(latencies)
    at = {f"p{percent}_ms": ordered[(len(ordered) - 1) * percent // 100] for percent in (50, 99)}
    return {name: round(value * 1000, 2) for name, value in at.items()}


async def enqueue_for(
    seconds: float, enqueue: Callable[[list[int]], Awaitable[object]], *, callers: int, batch: int
) -> Measured:
    """Each of the callers enqueues `batch` jobs, waits until they are durable, and again."""
    latencies: list[float] = []
    number = 0
    end = time.perf_counter() + _WARM_SECONDS + seconds
    begin = end - seconds

    async def caller() -> None:
        nonlocal number
        while (started := time.perf_counter()) < end:
            number += batch
            await enqueue(list(range(number - batch, number)))
            if begin <= (ended := time.perf_counter()) < end:
                latencies.append(ended - started)

    await asyncio.gather(*(caller() for _ in range(callers)))
    rate = len(latencies) * batch / seconds
    return {"per_second": round(rate, 1), "callers": callers, "batch": batch} | percentiles(
        latencies
    )


class RoundTrip:
    """A closed loop: as many jobs are enqueued as end, OUTSTANDING of them are on their way.

    The latency is from the call that enqueues a job until a worker has it; of those jobs only that
    this loop enqueued, so with rows waiting before them there is none.
    """

    def __init__(self) -> None:
        self._started: dict[int, float] = {}
        self._latencies: list[float] = []
        self._counts = False
        self._ended = 0
        self._on_their_way = 0
        self._room = asyncio.Event()

    async def run(
        self,
        seconds: float,
        enqueue: Callable[[list[int]], Awaitable[object]],
        *,
        callers: int,
        batch: int,
    ) -> Measured:
        """Enqueue, while somebody else calls `picked_up` and `ended`."""
        number = 0

        async def caller() -> None:
            nonlocal number
            while True:
                while self._on_their_way + batch > OUTSTANDING:
                    self._room.clear()
                    await self._room.wait()
                self._on_their_way += batch
                numbers = list(range(number, number + batch))
                number += batch
                now = time.perf_counter()
                self._started.update(dict.fromkeys(numbers, now))
                await enqueue(numbers)

        tasks = [asyncio.create_task(caller()) for _ in range(callers)]
        try:
            await self._sleep(_WARM_SECONDS, tasks)
            self._counts, began = True, time.perf_counter()
            await self._sleep(seconds, tasks)
            self._counts, took = False, time.perf_counter() - began
        finally:
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks)
        return {"per_second": round(self._ended / took, 1)} | percentiles(self._latencies)

    async def _sleep(self, seconds: float, tasks: list["asyncio.Task[None]"]) -> None:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    def picked_up(self, number: int | None) -> None:
        """A worker has the job; `number` None: one that was there before."""
        started = None if number is None else self._started.pop(number, None)
        if self._counts and started is not None:
            self._latencies.append(time.perf_counter() - started)

    def ended(self) -> None:
        """A job has come to its end."""
        self._on_their_way -= 1
        self._room.set()
        self._ended += self._counts


def answer(queue: Queue, line: str) -> str:
    """A command as `serve` takes it, carried out: JSON to JSON."""
    command: dict[str, float] = json.loads(line)
    if "prepare" in command:
        asyncio.run(queue.prepare(int(command["prepare"])))
        return "{}"
    measure = queue.enqueue if "enqueue" in command else queue.roundtrip
    [seconds] = command.values()
    return json.dumps(asyncio.run(measure(seconds)))
