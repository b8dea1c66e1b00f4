"""The job's database connection, shared by its handler and its client."""

import asyncio
from typing import Any

from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row


class Turns:
    """Statements of the client's own on a connection in autocommit mode, between transactions."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection
        self._ours = asyncio.Lock()

    async def execute(self, statement: str, values: dict[str, Any]) -> list[Any] | None:
        """Run it by itself, and return its rows; None, and nothing run, within a transaction."""
        async with self._ours:
            connection = self._connection
            # Nothing is awaited between this and the moment when the cursor has the connection's
            # lock: with `_ours`, nobody can begin a transaction before.
            if connection.lock.locked():
                return None
            if connection.info.transaction_status != TransactionStatus.IDLE:
                return None
            cursor = connection.cursor(row_factory=tuple_row)
            await cursor.execute(statement.encode(), values)
            return await cursor.fetchall() if cursor.description is not None else []
