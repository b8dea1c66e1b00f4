"""The connection pool, and the translation of a database that is away into our own error.

Connections: a process holds at most `database_pool_size` here, and each GroupCommit its lanes.
Nothing depends on session state, so a transaction-mode PgBouncer may stand between. Prepared
statements, which do, are left out behind one: see `connect`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from hybridjobs.errors import DatabaseUnavailable, RowLocked
from hybridjobs.store.migrate import check

# Read-only: after a failover this connection leads to what has become the standby.
AWAY = (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction)
_OPTIONS: dict[str, Any] = {
    "autocommit": True,
    "row_factory": dict_row,
    "connect_timeout": 5,
    # A peer that is gone without a word (its node, or a cut network) is noticed within some 20 s,
    # where the system's own settings take 15 minutes, or 2 hours while only an answer is awaited.
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}


async def connect(url: str) -> AsyncConnection[DictRow]:
    """A connection outside the pool, as those in it are: rows are dicts, statements commit."""
    connection = await AsyncConnection.connect(url, **_OPTIONS)
    try:
        await _prepare_unless_pooled(connection)
    except BaseException:
        await connection.close()
        raise
    return connection


async def _prepare_unless_pooled(connection: AsyncConnection[DictRow]) -> None:
    """No prepared statements where a pooler stands between: the next one may go to a server that
    does not know it, or knows another by its name (PgBouncer has a remedy from 1.21 on).

    A pooler shows by its process number: it cannot hand out that of a server it changes.
    """
    row = await (await connection.execute("SELECT pg_backend_pid() AS pid")).fetchone()
    if row is None or row["pid"] != connection.info.backend_pid:
        connection.prepare_threshold = None


def _cancels() -> int:
    """How often somebody has asked the running task to end."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


class Database:
    """A pool of connections whose rows are dicts and whose statements commit one by one."""

    def __init__(self, url: str, *, size: int, wait_seconds: float = 5.0) -> None:
        self._pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
            url,
            min_size=1,
            max_size=size,
            timeout=wait_seconds,
            kwargs=_OPTIONS,
            configure=_prepare_unless_pooled,
            check=AsyncConnectionPool.check_connection,
            open=False,
        )

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[DictRow]]:
        """A connection in autocommit mode; DatabaseUnavailable where there is none to be had.

        RowLocked where a statement with PATIENCE lost it.
        """
        cancels = _cancels()
        try:
            async with self._pool.connection() as connection:
                if _cancels() > cancels:
                    # The pool waits by wait_for, which before Python 3.12 can swallow a cancel
                    # that comes with the connection.
                    raise asyncio.CancelledError
                try:
                    yield connection
                except psycopg.errors.ReadOnlySqlTransaction:
                    # It answers, so that the pool would keep it, and lead us there again.
                    await connection.close()
                    raise
        except psycopg.errors.LockNotAvailable as error:
            raise RowLocked from error
        except (*AWAY, PoolTimeout, PoolClosed) as error:
            raise DatabaseUnavailable(f"the database does not answer: {error}") from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection[DictRow]]:
        """A connection inside one transaction, committed on leaving."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def check_schema(self) -> None:
        """SchemaError unless the schema is new enough; DatabaseUnavailable if none answers."""
        async with self.connection() as connection:
            await check(connection)
