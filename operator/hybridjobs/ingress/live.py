"""Jobs and batches followed as they change: one task a process reads for all who follow.

It looks every PERIOD_SECONDS while anybody follows, and not at all otherwise. Nothing is told by
the transactions that change jobs: a NOTIFY in each would make their commits queue up.
Whoever follows one job or batch holds its last state alone; whoever follows all jobs holds what it
has not read yet, and is cut off when that is too much. Either goes on later from where it was.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, KeysView, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar
from uuid import UUID

import structlog
from psycopg import AsyncConnection
from psycopg.rows import DictRow
from sse_starlette import ServerSentEvent

from hybridjobs.errors import DatabaseUnavailable, Unavailable
from hybridjobs.ingress import views
from hybridjobs.store.batches import Batch, get_batches
from hybridjobs.store.changes import (
    Changes,
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

_LOOK_SECONDS = 10.0  # that one may take
_AWAY_SECONDS = 1.0
_RECOUNT_SECONDS = 15.0  # of a batch without changes: deleted jobs are none

State = TypeVar("State", JobState, Batch)


class Change:
    """A job that changed, and its event's text: that is made once, for all who follow."""

    def __init__(self, job: JobChange) -> None:
        self.job = job

    @cached_property
    def event(self) -> bytes:
        """The event, without an id."""
        return ServerSentEvent(views.change(self.job), event="job", sep="\n").encode()


@dataclass(frozen=True, slots=True)
class News:
    """What changed until `snapshot`; `missed`: it was too much, or is unknown, and is not here."""

    changes: Sequence[Change]
    snapshot: Snapshot
    missed: bool = False


class Feed:
    """What a follower of many jobs has not read yet."""

    def __init__(self, wanted: Callable[[JobChange], bool]) -> None:
        self._wanted = wanted
        self._news: deque[News] = deque()
        self._held = 0
        self._ready = asyncio.Event()
        self.cut = False

    def offer(self, news: News) -> None:
        """Add what is wanted of the news; cuts the follower off when it holds too much."""
        offered = self._wanted_of(news)
        self._held += len(offered.changes)
        if self._held > MAX_HELD:
            self.end()
        if self.cut:
            return
        last = self._news[-1] if self._news else None
        if last is not None and not any((_says_something(offered), _says_something(last))):
            self._news[-1] = offered  # only how far it has come
        else:
            self._news.append(offered)
        if _says_something(offered):
            self._ready.set()

    def begin(self, news: News) -> None:
        """Put what it catches up with, which is bounded already, before all else."""
        first = self._wanted_of(news)
        self._news.appendleft(first)
        if _says_something(first):
            self._ready.set()

    def end(self) -> None:
        """Cut the follower off."""
        self.cut = True
        self._news.clear()
        self._ready.set()

    @property
    def ready(self) -> bool:
        """Whether there is something to read."""
        return self._ready.is_set()

    async def wait(self, seconds: float) -> None:
        """Until there is something to read, or it is cut off; for some time at most."""
        await set_within(self._ready, seconds)

    def take(self) -> list[News]:
        """All that is there."""
        taken = list(self._news)
        self._news.clear()
        self._held = 0
        if not self.cut:
            self._ready.clear()
        return taken

    def _wanted_of(self, news: News) -> News:
        changes = [change for change in news.changes if self._wanted(change.job)]
        return News(changes, news.snapshot, news.missed)


class Watch(Generic[State]):
    """The last state of one job or batch; `gone`: it was deleted; `cut`: the process ends."""

    def __init__(self) -> None:
        self._moved = asyncio.Event()
        self.state: State | None = None
        self.gone = False
        self.cut = False

    def show(self, state: State | None) -> None:
        """It as it is now; None: there is none any more."""
        if state is None:
            self.gone = True
        elif state == self.state:
            return
        self.state = state or self.state
        self._moved.set()

    def end(self) -> None:
        """Cut the follower off."""
        self.cut = True
        self._moved.set()

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of it."""
        return self.gone or (self.state is not None and self.state.finished)

    async def moved(self, seconds: float) -> bool:
        """Whether it changed since the last call, or was cut off, within so many seconds."""
        if not await set_within(self._moved, seconds):
            return False
        self._moved.clear()
        return True

    async def finishes(self, seconds: float) -> bool:
        """Whether it finishes within so many seconds, and before the process ends."""
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        while not (self.finished or self.cut) and (left := until - clock()) > 0:
            await self.moved(left)
        return self.finished


class _Watched(Generic[State]):
    """Things of one kind, each with those who watch it."""

    def __init__(self) -> None:
        self._watches: dict[UUID, set[Watch[State]]] = {}

    @property
    def ids(self) -> KeysView[UUID]:
        return self._watches.keys()

    @property
    def all(self) -> list[Watch[State]]:
        return [watch for each in self._watches.values() for watch in each]

    def add(self, id_: UUID, watch: Watch[State]) -> None:
        self._watches.setdefault(id_, set()).add(watch)

    def remove(self, id_: UUID, watch: Watch[State]) -> None:
        self._watches[id_].remove(watch)
        if not self._watches[id_]:
            del self._watches[id_]

    def show(self, asked: Collection[UUID], found: Mapping[UUID, State]) -> None:
        for id_ in asked:
            for watch in self._watches.get(id_, ()):
                watch.show(found.get(id_))


class Live:
    """Follows jobs and batches on behalf of clients; `run()` must be running.

    `stopping` is set when the process ends: all who follow are cut off then.
    """

    def __init__(self, database: Database, *, stopping: asyncio.Event) -> None:
        self._database = database
        self._stopping = stopping
        self._feeds: set[Feed] = set()
        self._feeding = 0
        self._jobs = _Watched[JobState]()
        self._batches = _Watched[Batch]()
        self._watching = 0
        self._counted: dict[UUID, float] = {}  # when each batch was
        self._followed = asyncio.Event()
        self._reading = asyncio.Lock()
        self._snapshot: Snapshot | None = None  # of the last look at all jobs
        self._clock = asyncio.get_running_loop().time

    async def run(self) -> None:
        """Look until cancelled; a database that is away is waited for, and nothing is missed."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._end())
            while True:
                await self._followed.wait()
                try:
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._look()
                    await asyncio.sleep(PERIOD_SECONDS)
                except (DatabaseUnavailable, TimeoutError) as error:
                    log.warning("followers wait", error=str(error) or "no answer in time")
                    await asyncio.sleep(_AWAY_SECONDS)

    @asynccontextmanager
    async def feed(
        self, wanted: Callable[[JobChange], bool], after: Snapshot | None
    ) -> AsyncIterator[Feed]:
        """Every change from `after` on, else from now on.

        Unavailable when too many follow; DatabaseUnavailable.
        """
        if self._feeding >= MAX_FEEDS:
            raise Unavailable("too many clients follow the jobs", retry_after=10)
        self._feeding += 1
        feed = Feed(wanted)
        try:
            upto = await self._entered(feed)
            # After it has entered: what one reads to catch up holds up no other.
            feed.begin(await self._caught_up(after, upto))
            yield feed
        finally:
            self._feeding -= 1
            self._feeds.discard(feed)
            self._rest()

    def job(self, job_id: UUID) -> AbstractAsyncContextManager[Watch[JobState]]:
        """One job; Unavailable when too much is followed."""
        return self._watch(self._jobs, job_id)

    def batch(self, batch_id: UUID) -> AbstractAsyncContextManager[Watch[Batch]]:
        """One batch; Unavailable when too much is followed."""
        return self._watch(self._batches, batch_id)

    @asynccontextmanager
    async def _watch(self, watched: _Watched[State], id_: UUID) -> AsyncIterator[Watch[State]]:
        if self._watching >= MAX_WATCHES:
            raise Unavailable("too many clients wait for jobs", retry_after=10)
        watch = Watch[State]()
        watch.cut = self._stopping.is_set()
        self._watching += 1
        watched.add(id_, watch)
        self._followed.set()
        try:
            yield watch
        finally:
            self._watching -= 1
            watched.remove(id_, watch)
            self._rest()

    async def _look(self) -> None:
        async with self._reading, self._database.connection() as connection:
            if asked := list(self._jobs.ids):
                self._jobs.show(asked, await job_states(connection, asked))
            if self._reads_all:
                news = await self._read(connection)
                for feed in self._feeds:
                    feed.offer(news)
                await self._count(connection, news)

    async def _read(self, connection: AsyncConnection[DictRow]) -> News:
        if self._snapshot is None:
            news = News([], await current_snapshot(connection), missed=True)
        else:
            found = await changes_since(connection, self._snapshot, limit=MAX_CHANGES)
            news = _news(found)
        self._snapshot = news.snapshot if self._reads_all else None
        return news

    async def _count(self, connection: AsyncConnection[DictRow], news: News) -> None:
        """Count those batches that the news are of, new ones, and for safety's sake all others."""
        now = self._clock()
        changed = {change.job.batch_id for change in news.changes}
        # Those that this fails to count stay due.
        self._counted = {
            id_: at
            for id_, at in self._counted.items()
            if id_ in self._batches.ids
            and not (news.missed or id_ in changed or at < now - _RECOUNT_SECONDS)
        }
        if due := self._batches.ids - self._counted.keys():
            self._batches.show(due, await get_batches(connection, due))
            self._counted |= dict.fromkeys(due, now)

    async def _entered(self, feed: Feed) -> Snapshot:
        """The snapshot from which on the feed gets what changes: that of the last look."""
        async with self._reading:
            upto = self._snapshot
            if upto is None:
                async with self._database.connection() as connection:
                    upto = await current_snapshot(connection)
            self._snapshot = upto
            self._feeds.add(feed)
        self._followed.set()
        if self._stopping.is_set():
            feed.end()
        return upto

    async def _caught_up(self, after: Snapshot | None, upto: Snapshot) -> News:
        if after is None or after.era != upto.era:
            return News([], upto, missed=after is not None)
        async with self._database.connection() as connection:
            if after.xmax > upto.xmax:
                # Read by another replica a moment ago; else it is of no time of this database.
                now = await current_snapshot(connection)
                return News([], upto, missed=after.xmax > now.xmax)
            found = await changes_since(connection, after, upto=upto, limit=MAX_CHANGES)
        return _news(found)

    async def _end(self) -> None:
        await self._stopping.wait()
        followers: list[Feed | Watch[JobState] | Watch[Batch]]
        followers = [*self._feeds, *self._jobs.all, *self._batches.all]
        for each in followers:
            each.end()

    @property
    def _reads_all(self) -> bool:
        return bool(self._feeds or self._batches.ids)

    def _rest(self) -> None:
        if not self._reads_all:
            self._snapshot = None
            if not self._jobs.ids:
                self._followed.clear()


def _news(found: Changes) -> News:
    changes = [Change(job) for job in found.jobs]
    return News(changes, found.snapshot, missed=not found.complete)


def _says_something(news: News) -> bool:
    return news.missed or bool(news.changes)
