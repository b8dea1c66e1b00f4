"""What an authority that is slow, or away at times, says about callers: remembered for seconds."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar

from hybridjobs.errors import Unavailable

V = TypeVar("V")

_REMEMBERED = 1000  # of those that are known, and as many of those that are not
_WAITING = 32
_AT_ONCE = 2  # of the connections that the endpoints use too
_LOOKUP_SECONDS = 3.0
_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Answer(Generic[V]):
    value: V | None
    at: float


class Lookups(Generic[V]):
    """Answers by key; None: the authority does not know it.

    An answer holds for `keep_seconds`. While the authority is away, what was known stays so for
    `outage_seconds`; what was not is Unavailable. The two are remembered apart, so that a flood of
    keys nobody knows makes no other one forgotten; and lookups are few at a time, so that such a
    flood does not keep the authority from other work.
    """

    def __init__(
        self,
        authority: str,
        *,
        keep_seconds: float = 5.0,
        outage_seconds: float = 60.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._authority = authority
        self._keep_seconds = keep_seconds
        self._outage_seconds = outage_seconds
        self._clock = clock
        self._known: dict[Hashable, _Answer[V]] = {}
        self._unknown: dict[Hashable, _Answer[V]] = {}
        self._running: dict[Hashable, asyncio.Task[V | None]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._away_until = float("-inf")

    async def get(self, key: Hashable, look_up: Callable[[], Awaitable[V | None]]) -> V | None:
        """The answer, by `look_up` where none is remembered that holds; Unavailable."""
        answer = self._known.get(key) or self._unknown.get(key)
        if answer is not None and self._clock() < answer.at + self._keep_seconds:
            return answer.value
        try:
            return await self._shared(key, look_up)
        except Unavailable:
            if (
                answer is None
                or answer.value is None
                or self._clock() >= answer.at + self._outage_seconds
            ):
                raise
            return answer.value

    async def _shared(self, key: Hashable, look_up: Callable[[], Awaitable[V | None]]) -> V | None:
        """The answer of the one lookup that runs for this key."""
        task = self._running.get(key)
        if task is None:
            if self._clock() < self._away_until:
                raise self._away()
            if len(self._running) >= _WAITING:
                raise Unavailable("too many callers to look up at once", retry_after=1)
            task = self._running[key] = asyncio.create_task(self._look_up(key, look_up))
            task.add_done_callback(lambda done: self._done(key, done))
        # Others may wait for it, too.
        return await asyncio.shield(task)

    async def _look_up(self, key: Hashable, look_up: Callable[[], Awaitable[V | None]]) -> V | None:
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS), self._places:
                value = await look_up()
        except (Unavailable, TimeoutError) as error:
            self._away_until = self._clock() + _PAUSE_SECONDS
            raise self._away() from error
        self._known.pop(key, None)
        self._unknown.pop(key, None)
        remembered = self._unknown if value is None else self._known
        remembered[key] = _Answer(value, self._clock())
        if len(remembered) > _REMEMBERED:
            del remembered[next(iter(remembered))]
        return value

    def _done(self, key: Hashable, task: asyncio.Task[V | None]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # seen, also where nobody waits any more

    def _away(self) -> Unavailable:
        return Unavailable(f"{self._authority} does not answer: callers cannot be looked up")
