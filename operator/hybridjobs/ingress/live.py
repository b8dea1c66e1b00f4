"""Jobs followed as they change: one task a process reads for all who follow.

It looks every PERIOD_SECONDS while anybody follows, and not at all otherwise. Nothing is told by
the transactions that change jobs: a NOTIFY in each would make their commits queue up.
Whoever follows one job holds its last state alone; whoever follows all holds what it has not read
yet, and is cut off when that is too much. Either goes on later from where it was.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import structlog
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.errors import DatabaseUnavailable, Unavailable
from hybridjobs.store.changes import (
    JobChange,
    JobState,
    Snapshot,
    changes_since,
    current_snapshot,
    job_states,
)
from hybridjobs.store.database import Database
from hybridjobs.waits import set_within

log = structlog.get_logger(__name__)

PERIOD_SECONDS = 0.25
MAX_FEEDS = 100
MAX_WATCHES = 2000
MAX_CHANGES = 20_000  # of one look, and those that a client may catch up with
MAX_HELD = 20_000  # changes that a follower has not read

_AWAY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Batch:
    """What changed until `snapshot`; `missed`: it was too much, or is unknown, and is not here."""

    changes: Sequence[JobChange]
    snapshot: Snapshot
    missed: bool = False


class Feed:
    """What a follower of many jobs has not read yet."""

    def __init__(self, wanted: Callable[[JobChange], bool], first: Batch) -> None:
        self._wanted = wanted
        self._batches: deque[Batch] = deque()
        self._held = 0
        self._ready = asyncio.Event()
        self.cut = False
        self._add(self._wanted_of(first))  # what it catches up with is bounded already

    def offer(self, batch: Batch) -> None:
        """Add what is wanted of the batch; cuts the follower off when it holds too much."""
        offered = self._wanted_of(batch)
        self._held += len(offered.changes)
        if self._held > MAX_HELD:
            self.cut = True
            self._batches.clear()
            self._ready.set()
        if not self.cut:
            self._add(offered)

    def _wanted_of(self, batch: Batch) -> Batch:
        changes = [change for change in batch.changes if self._wanted(change)]
        return Batch(changes, batch.snapshot, batch.missed)

    def _add(self, batch: Batch) -> None:
        says_something = batch.missed or bool(batch.changes)
        last = self._batches[-1] if self._batches else None
        if last is not None and not (says_something or last.missed or last.changes):
            self._batches[-1] = batch  # only how far it has come
        else:
            self._batches.append(batch)
        if says_something:
            self._ready.set()

    @property
    def ready(self) -> bool:
        """Whether there is something to read."""
        return self._ready.is_set()

    async def wait(self, seconds: float) -> None:
        """Until there is something to read, or it is cut off; for some time at most."""
        await set_within(self._ready, seconds)

    def take(self) -> list[Batch]:
        """All that is there."""
        taken = list(self._batches)
        self._batches.clear()
        self._held = 0
        if not self.cut:
            self._ready.clear()
        return taken


class Watch:
    """The last state of one job; `gone`: it was deleted."""

    def __init__(self) -> None:
        self._moved = asyncio.Event()
        self.state: JobState | None = None
        self.gone = False

    def show(self, state: JobState | None) -> None:
        """The job as it is now; None: there is none any more."""
        if state is None:
            self.gone = True
        elif state == self.state:
            return
        self.state = state or self.state
        self._moved.set()

    async def moved(self, seconds: float) -> bool:
        """Whether it changed since the last call, within so many seconds."""
        if not await set_within(self._moved, seconds):
            return False
        self._moved.clear()
        return True


class Live:
    """Follows jobs on behalf of clients; `run()` must be running."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._feeds: set[Feed] = set()
        self._watches: dict[UUID, set[Watch]] = {}
        self._watching = 0
        self._followed = asyncio.Event()
        self._reading = asyncio.Lock()
        self._snapshot: Snapshot | None = None  # of the last look at all jobs
        self._clock = asyncio.get_running_loop().time

    async def run(self) -> None:
        """Look until cancelled; a database that is away is waited for, and nothing is missed."""
        while True:
            await self._followed.wait()
            try:
                await self._look()
                await asyncio.sleep(PERIOD_SECONDS)
            except DatabaseUnavailable as error:
                log.warning("followers wait", error=error.detail)
                await asyncio.sleep(_AWAY_SECONDS)

    @asynccontextmanager
    async def feed(
        self, wanted: Callable[[JobChange], bool], after: Snapshot | None
    ) -> AsyncIterator[Feed]:
        """Every change from `after` on, else from now on, its first batch already there.

        Unavailable when too many follow; DatabaseUnavailable.
        """
        if len(self._feeds) >= MAX_FEEDS:
            raise Unavailable("too many clients follow the jobs", retry_after=10)
        async with self._reading, self._database.connection() as connection:
            # Between two looks: the feed begins where the last one ended.
            if self._snapshot is None or not self._feeds:
                self._snapshot = await current_snapshot(connection)
            feed = Feed(wanted, await self._caught_up(connection, after, self._snapshot))
            self._feeds.add(feed)
        self._followed.set()
        try:
            yield feed
        finally:
            self._feeds.discard(feed)
            self._rest()

    @asynccontextmanager
    async def watch(self, job_id: UUID) -> AsyncIterator[Watch]:
        """One job; Unavailable when too many are followed."""
        if self._watching >= MAX_WATCHES:
            raise Unavailable("too many clients wait for jobs", retry_after=10)
        watch = Watch()
        self._watching += 1
        self._watches.setdefault(job_id, set()).add(watch)
        self._followed.set()
        try:
            yield watch
        finally:
            self._watching -= 1
            self._watches[job_id].discard(watch)
            if not self._watches[job_id]:
                del self._watches[job_id]
            self._rest()

    async def ended(self, job_id: UUID, *, until: float, stopping: asyncio.Event) -> bool:
        """Whether the job is over before that time of the loop's clock, or was when asked."""
        try:
            async with self.watch(job_id) as watch:
                while not stopping.is_set() and (left := until - self._clock()) > 0:
                    await watch.moved(min(left, PERIOD_SECONDS))
                    if watch.gone or (watch.state and watch.state.status.is_terminal):
                        return True
        except Unavailable:
            return False
        return False

    async def _look(self) -> None:
        async with self._reading, self._database.connection() as connection:
            if self._watches:
                asked = list(self._watches)
                states = await job_states(connection, asked)
                for job_id in asked:
                    for watch in self._watches.get(job_id, ()):
                        watch.show(states.get(job_id))
            if self._feeds and self._snapshot is not None:
                found = await changes_since(connection, self._snapshot, limit=MAX_CHANGES)
                self._snapshot = found.snapshot
                batch = Batch(found.jobs, found.snapshot, missed=not found.complete)
                for feed in self._feeds:
                    feed.offer(batch)

    async def _caught_up(
        self, connection: AsyncConnection[DictRow], after: Snapshot | None, upto: Snapshot
    ) -> Batch:
        if after is None:
            return Batch([], upto)
        if after.xmax > upto.xmax:
            # Read by another replica a moment ago, or from a database that was restored since.
            now = await current_snapshot(connection)
            return Batch([], upto, missed=after.xmax > now.xmax)
        found = await changes_since(connection, after, upto=upto, limit=MAX_CHANGES)
        return Batch(found.jobs, upto, missed=not found.complete)

    def _rest(self) -> None:
        if not self._feeds and not self._watches:
            self._followed.clear()
