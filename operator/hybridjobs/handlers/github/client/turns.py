"""The job's database connection, shared by its handler and its client."""

from typing import Any

from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row


class Turns:
    """Statements of the client's own on a connection in autocommit mode, between transactions."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    async def execute(self, statement: str, values: dict[str, Any]) -> list[Any] | None:
        """Run it by itself, and return its rows; None, and nothing run, within a transaction."""
        connection = self._connection
        cursor = connection.cursor(row_factory=tuple_row)
        # As cursor.execute, but for the look at the transaction: before it has the lock another
        # task may be about to begin one, and would take the statement with it when rolled back.
        async with connection.lock:
            if connection.info.transaction_status != TransactionStatus.IDLE:
                return None
            await connection.wait(cursor._execute_gen(statement.encode(), values))
        return await cursor.fetchall() if cursor.description is not None else []
