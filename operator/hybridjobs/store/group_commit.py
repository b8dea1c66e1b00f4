"""Natural group commit: everything asked for while commits are in flight goes into the next.

No timer and no linger: an idle queue commits a lone item at once, a busy one commits hundreds
together, and the wait is never longer than the commit before.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.errors import DatabaseUnavailable, HybridJobsError, InvalidInput, RowLocked
from hybridjobs.store.database import AWAY, connect

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WAITING = 10_000
COMMIT_SECONDS = 6.0
# A webhook's sender waits for 10 s; a lock in a batch takes a second for each time it is halved.
WAIT_SECONDS = 8.0
_PROGRAM_LIMIT_EXCEEDED = "54"  # SQLSTATE class: nested too deep, key too long for an index


class _Lane:
    """One connection, made when it is needed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: AsyncConnection[DictRow] | None = None

    async def connected(self) -> AsyncConnection[DictRow]:
        if self._connection is None or self._connection.closed:
            self._connection = await connect(self._url)
        return self._connection

    async def disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                await connection.close()


class GroupCommit(Generic[Item, Result]):
    """Feeds single items from many tasks to `flush`, in batches, over `lanes` own connections.

    `flush(connection, items)` writes by one statement, which commits by itself (a BEGIN and a
    COMMIT would be two more round trips), and returns one result an item. It must be safe to
    repeat, since a connection that dies in a commit leaves open whether it happened: then the
    same batch is sent once more. What Postgres refuses fails only its own item (InvalidInput), and
    so does a row or key that somebody keeps locked (RowLocked), where `flush` writes with PATIENCE;
    a database that is away, or silent for COMMIT_SECONDS, fails them all (DatabaseUnavailable).
    Nobody waits for more than WAIT_SECONDS: what is then in line is dropped, what is in a commit
    may come true. Callers that are answered together come again together: without `max_batch` a
    batch would grow until everybody waits in one, and the database and we would work in turn
    instead of at once. `committed` is told the size of each batch that is durable.
    """

    def __init__(
        self,
        url: str,
        flush: Callable[[AsyncConnection[DictRow], Sequence[Item]], Awaitable[list[Result]]],
        *,
        lanes: int = 1,
        max_batch: int = 64,
        committed: Callable[[int], None] | None = None,
    ) -> None:
        self._lanes = [_Lane(url) for _ in range(lanes)]
        self._flush = flush
        self._max_batch = max_batch
        self._committed = committed
        self._waiting: dict[asyncio.Future[Result], Item] = {}  # in the order they came
        self._wake = asyncio.Event()
        self._ended = False

    async def submit(self, item: Item) -> Result:
        """Returns after the commit that holds the item; DatabaseUnavailable: it may have none."""
        if self._ended:
            raise DatabaseUnavailable("shutting down")
        if len(self._waiting) >= MAX_WAITING:
            raise DatabaseUnavailable("too much waits for the database", retry_after=1)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting[future] = item
        self._wake.set()
        # Every webhook comes through here, and asyncio.timeout costs several times as much.
        late = loop.call_later(WAIT_SECONDS, self._give_up, future)
        try:
            return await future
        finally:
            late.cancel()

    def _give_up(self, future: asyncio.Future[Result]) -> None:
        self._waiting.pop(future, None)
        if not future.done():
            future.set_exception(DatabaseUnavailable("the database does not answer in time"))

    async def run(self) -> None:
        """Commit until cancelled; what still waits then is refused, not lost in silence."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for lane in self._lanes:
                    tasks.create_task(self._run(lane))
        finally:
            self._ended = True
            for future in self._waiting:
                if not future.done():
                    future.set_exception(DatabaseUnavailable("shutting down"))

    async def _run(self, lane: _Lane) -> None:
        try:
            while True:
                await self._wake.wait()
                first = list(islice(self._waiting, self._max_batch))
                batch = [(self._waiting.pop(future), future) for future in first]
                if not self._waiting:
                    self._wake.clear()
                if batch:
                    await self._commit(lane, batch)
        finally:
            await lane.disconnect()

    async def _commit(self, lane: _Lane, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        # A caller that is gone still gets its item committed: it may be a webhook whose sender
        # hung up, and the sender's next delivery finds the row.
        items = [item for item, _ in batch]
        try:
            results = await self._flushed(lane, items)
        except _NotAll as error:
            if len(batch) == 1:
                _fail(batch, error.answer)
                return
            middle = len(batch) // 2
            await self._commit(lane, batch[:middle])
            await self._commit(lane, batch[middle:])
        except HybridJobsError as error:
            _fail(batch, error)
        except asyncio.CancelledError:
            _fail(batch, DatabaseUnavailable("shutting down"))
            raise
        except Exception as error:
            _fail(batch, error)
        else:
            if self._committed is not None:
                self._committed(len(batch))
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    async def _flushed(self, lane: _Lane, items: Sequence[Item]) -> list[Result]:
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                try:
                    return await self._try(lane, items)
                except AWAY:
                    return await self._try(lane, items)
        except AWAY as error:
            raise DatabaseUnavailable(f"the database does not answer: {error}") from error
        except TimeoutError as error:
            raise DatabaseUnavailable("the database does not answer in time") from error

    async def _try(self, lane: _Lane, items: Sequence[Item]) -> list[Result]:
        try:
            return await self._flush(await lane.connected(), items)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise _refused(_first_line(error)) from error
        except UnicodeEncodeError as error:
            raise _refused("half of a surrogate pair is no text") from error
        except psycopg.errors.LockNotAvailable as error:
            raise _NotAll(RowLocked()) from error
        except AWAY as error:
            if (error.sqlstate or "").startswith(_PROGRAM_LIMIT_EXCEEDED):
                raise _refused(_first_line(error)) from error
            await lane.disconnect()
            raise
        except asyncio.CancelledError:
            # Half a conversation: what comes next on this connection would be its rest.
            await lane.disconnect()
            raise


class _NotAll(Exception):  # noqa: N818 - never leaves this module
    """At least one item in the batch cannot be written; `answer` is for that one."""

    def __init__(self, answer: HybridJobsError) -> None:
        super().__init__(str(answer))
        self.answer = answer


def _refused(why: str) -> _NotAll:
    return _NotAll(InvalidInput(f"the database refuses this: {why}"))


def _fail(batch: Sequence[tuple[object, asyncio.Future[Result]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


def _first_line(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).partition("\n")[0]
