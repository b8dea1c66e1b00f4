"""Time and turns that only the simulation decides: a loop that runs what is ready, no more."""

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import Context
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import count
from typing import Any, ClassVar, Self
from unittest.mock import patch

from hybridjobs.controller import cleanup, events, execute, holds, reconcile, sweep, types

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Loop:
    """Runs tasks in the order in which they became ready; its time stands still until `advance`."""

    def __init__(self) -> None:
        self._as_loop: Any = self  # of an event loop it has what is used here
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = count()
        self._seconds = 0.0
        self.errors: list[str] = []

    def settle(self) -> None:
        """Run until everything waits for something."""
        with self.current():
            while self._ready:
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()

    @contextmanager
    def current(self) -> Iterator[None]:
        """asyncio takes it for the loop that runs."""
        asyncio._set_running_loop(self._as_loop)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def next_timer(self) -> float | None:
        """When the first timer is due."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def advance(self, to: float) -> None:
        """Let time pass; timers that come due are fired in their order."""
        while (when := self.next_timer()) is not None and when <= to:
            self._seconds = max(self._seconds, when)
            self._ready.append(heapq.heappop(self._timers)[2])
            self.settle()
        self._seconds = max(self._seconds, to)

    def now(self) -> datetime:
        """The time that everybody sees."""
        return EPOCH + timedelta(seconds=self._seconds)

    # What asyncio asks of a loop.

    def time(self) -> float:
        return self._seconds

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self._as_loop, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, **options: Any
    ) -> asyncio.TimerHandle:
        return self.call_at(self._seconds + delay, callback, *args, **options)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self._as_loop, context)
        heapq.heappush(self._timers, (when, next(self._order), handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is left out when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._as_loop)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self._as_loop, **options)

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")


class _Clock(datetime):
    loop: ClassVar[Loop]

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls.loop.now()  # type: ignore[return-value]


@contextmanager
def clock_of(loop: Loop) -> Iterator[None]:
    """The controller asks `loop` for the time."""
    clock = type("Clock", (_Clock,), {"loop": loop})
    with ExitStack() as stack:
        for module in (cleanup, events, execute, holds, reconcile, sweep, types):
            stack.enter_context(patch.object(module, "datetime", clock))
        for module in (holds, sweep):
            stack.enter_context(patch.object(module, "monotonic", loop.time))
        yield


def at_once(work: Awaitable[object]) -> None:
    """Run what waits for nothing."""
    try:
        work.__await__().send(None)
    except StopIteration:
        return
    raise RuntimeError("it waits")
