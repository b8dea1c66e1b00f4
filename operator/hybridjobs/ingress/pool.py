"""The warm children of this process, replaced when they die, grow too large or go stale."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

import structlog

from hybridjobs.ingress.child import Child, ChildDied

log = structlog.get_logger(__name__)

_WATCH_SECONDS = 1.0
# What one that has nothing to do may use of the processors in so many looks one after another: on a
# busy machine even an endless loop gets little in one.
_IDLE_CPU_SECONDS = 0.5
_IDLE_LOOKS = 10
_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 15.0)


class NoFreeChild(Exception):  # noqa: N818 - a state, named as one
    """None became free in time, or none can be started."""


class Pool:
    """`size` children for the handlers that `handlers()` names; `run()` must be running.

    `environment` is theirs, beside what a Python process needs. One that holds more than
    `memory_bytes` is killed, in the middle of a job too: it shares our container's memory. So is
    one that works while it has no job, as when a handler has left a thread behind.
    """

    def __init__(
        self,
        size: int,
        *,
        memory_bytes: int,
        environment: Mapping[str, str],
        handlers: Callable[[], tuple[str, ...]],
    ) -> None:
        self.size = size
        self._memory_bytes = memory_bytes
        self._environment = environment
        self._handlers = handlers
        self._free: asyncio.Queue[Child] = asyncio.Queue()
        self._coming = 0  # slots that have a child, or are about to
        self._epoch = 0

    async def run(self) -> None:
        """Keep the children until cancelled, then end them."""
        async with asyncio.TaskGroup() as slots:
            for _ in range(self.size):
                slots.create_task(self._keep())

    def renew(self) -> None:
        """Have every child replaced, those that work when they have done so."""
        self._epoch += 1

    async def acquire(self, handler: str, *, until: float) -> Child:
        """A child that knows the handler, free now or by the loop's time `until`; NoFreeChild."""
        if not self._coming:
            raise NoFreeChild
        try:
            async with asyncio.timeout_at(until):
                while True:
                    child = await self._free.get()
                    if child.alive and child.epoch == self._epoch and handler in child.handlers:
                        child.busy = True
                        child.runs += 1
                        return child
                    # One that is stale; its slot replaces it.
                    child.kill()
        except TimeoutError:
            raise NoFreeChild from None

    def release(self, child: Child) -> None:
        """The child has answered, or is dead."""
        child.busy = False
        if child.alive:
            self._free.put_nowait(child)

    async def _keep(self) -> None:
        failures = 0
        while True:
            handlers = self._handlers()
            if not handlers:
                await asyncio.sleep(_WATCH_SECONDS)
                continue
            self._coming += 1
            epoch = self._epoch
            try:
                child = await Child.start(handlers, self._environment)
                child.epoch = epoch
                failures = 0
                await self._watch(child)
            except (ChildDied, OSError) as error:
                wait = _BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)]
                failures += 1
                log.error("no inline child", error=str(error), handlers=handlers, seconds=wait)
            else:
                continue
            finally:
                self._coming -= 1
            await asyncio.sleep(wait)

    async def _watch(self, child: Child) -> None:
        """Until the child is dead, or idle and started for other handlers or before `renew`."""
        self._free.put_nowait(child)
        runs, used = 0, child.cpu_seconds()
        idle: deque[float] = deque(maxlen=_IDLE_LOOKS)
        try:
            while child.alive:
                await asyncio.wait([child.exited], timeout=_WATCH_SECONDS)
                if (held := child.memory_bytes()) > self._memory_bytes:
                    log.warning("inline child killed for its memory", bytes=held)
                    child.kill()
                runs_before, used_before = runs, used
                runs, used = child.runs, child.cpu_seconds()
                if child.busy or runs != runs_before:
                    idle.clear()
                else:
                    idle.append(used - used_before)
                if sum(idle) > _IDLE_CPU_SECONDS:
                    log.warning("idle inline child killed for its work", seconds=sum(idle))
                    child.kill()
                is_stale = child.epoch != self._epoch or child.handlers != self._handlers()
                if is_stale and not child.busy:
                    return
        finally:
            await child.end()
