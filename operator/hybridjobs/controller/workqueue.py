"""A queue of keys: each waits at most once, is worked on by one worker, and backs off on failure.

After client-go's workqueue: a key added while it is worked on is worked on once more afterwards.
And after controller-runtime's priority queue: what is only listed stands behind what has happened,
so that ten thousand that a new leader looks at hold up nothing.
"""

import asyncio
from itertools import count

_BASE_SECONDS = 0.2
_MAX_SECONDS = 60.0


class WorkQueue:
    """Keys for `workers`; belongs to one event loop."""

    def __init__(self) -> None:
        # With each key whether it stands behind, and its place in line.
        self._ready: asyncio.PriorityQueue[tuple[bool, int, str]] = asyncio.PriorityQueue()
        self._places = count()
        # In _ready, or to go there when its worker is done; and whether behind.
        self._waiting: dict[str, bool] = {}
        self._working: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._waiting.keys() - self._working)

    def add(self, key: str, *, behind: bool = False) -> None:
        """Work on the key as soon as a worker is free; `behind`: and nothing else waits."""
        if not behind and (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        waits_behind = self._waiting.get(key)
        if waits_behind is None or (waits_behind and not behind):
            self._waiting[key] = behind
            if key not in self._working:
                self._put(key)

    def add_after(self, key: str, seconds: float) -> None:
        """Work on the key after `seconds`; the earliest of several such times counts."""
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self.add, key)

    def retry(self, key: str) -> float:
        """Work on the key again after a backoff that grows with its failures; returns seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        seconds: float = min(_MAX_SECONDS, _BASE_SECONDS * 2 ** min(failures - 1, 16))
        self.add_after(key, seconds)
        return seconds

    def succeeded(self, key: str) -> None:
        """Forget the key's failures."""
        self._failures.pop(key, None)

    async def get(self) -> str:
        """The next key; the worker must call `done` with it."""
        while True:
            behind, _, key = await self._ready.get()
            if self._waiting.get(key) == behind and key not in self._working:
                del self._waiting[key]
                self._working.add(key)
                return key
            # It has come to the front since, and been worked on.

    def done(self, key: str) -> None:
        """The worker has finished with the key."""
        self._working.discard(key)
        if key in self._waiting:
            self._put(key)

    def _put(self, key: str) -> None:
        self._ready.put_nowait((self._waiting[key], next(self._places), key))
