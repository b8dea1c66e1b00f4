"""Natural group commit: everything asked for while one commit is in flight goes into the next.

No timer and no linger: an idle queue commits a lone item at once, a busy one commits hundreds
together, and the wait is never longer than the commit before.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from hybridjobs.errors import DatabaseUnavailable, HybridJobsError, InvalidInput

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_BATCH = 256
MAX_WAITING = 10_000


class GroupCommit(Generic[Item, Result]):
    """Feeds single items from many tasks to `flush`, in batches, over one connection of its own.

    `flush(connection, items)` runs in a transaction and returns one result an item. It must be
    safe to repeat, since a connection that dies in COMMIT leaves open whether it happened: then
    the same batch is sent once more. Data that Postgres refuses fails only its own item
    (InvalidInput); a database that is away fails them all (DatabaseUnavailable).
    """

    def __init__(
        self,
        url: str,
        flush: Callable[[AsyncConnection[DictRow], Sequence[Item]], Awaitable[list[Result]]],
    ) -> None:
        self._url = url
        self._flush = flush
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._wake = asyncio.Event()
        self._connection: AsyncConnection[DictRow] | None = None

    async def submit(self, item: Item) -> Result:
        """Returns after the commit that holds the item."""
        if len(self._waiting) >= MAX_WAITING:
            raise DatabaseUnavailable("too much waits for the database", retry_after=1)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._wake.set()
        return await future

    async def run(self) -> None:
        """Commit until cancelled; what still waits then is refused, not lost in silence."""
        try:
            while True:
                await self._wake.wait()
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                if not self._waiting:
                    self._wake.clear()
                await self._commit(batch)
        finally:
            for _, future in self._waiting:
                if not future.done():
                    future.set_exception(DatabaseUnavailable("shutting down"))
            await self._disconnect()

    async def _commit(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        # A caller that is gone still gets its item committed: it may be a webhook whose sender
        # hung up, and the sender's next delivery finds the row.
        items = [item for item, _ in batch]
        try:
            results = await self._flushed(items)
        except psycopg.DataError as error:
            if len(batch) == 1:
                _fail(batch, InvalidInput(f"the database refuses this: {_first_line(error)}"))
                return
            for single in batch:
                await self._commit([single])
        except HybridJobsError as error:
            _fail(batch, error)
        except asyncio.CancelledError:
            _fail(batch, DatabaseUnavailable("shutting down"))
            raise
        except Exception as error:
            _fail(batch, error)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    async def _flushed(self, items: Sequence[Item]) -> list[Result]:
        for last_try in (False, True):
            try:
                connection = await self._connected()
                async with connection.transaction():
                    return await self._flush(connection, items)
            except psycopg.OperationalError as error:
                await self._disconnect()
                if last_try:
                    raise DatabaseUnavailable(f"the database does not answer: {error}") from error
        raise AssertionError("unreachable")

    async def _connected(self) -> AsyncConnection[DictRow]:
        if self._connection is None or self._connection.closed:
            self._connection = await AsyncConnection.connect(
                self._url, autocommit=True, row_factory=dict_row, connect_timeout=5
            )
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                await connection.close()


def _fail(batch: Sequence[tuple[object, asyncio.Future[Result]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


def _first_line(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).partition("\n")[0]
