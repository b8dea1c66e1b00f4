"""The tables that charts read instead of the history."""

from psycopg import AsyncConnection
from psycopg.rows import DictRow

_REFRESH = "SELECT hybridjobs.refresh_job_rollups() AS written"


async def refresh_rollups(connection: AsyncConnection[DictRow]) -> int:
    """Fold the minutes that are over into job_rollups; returns the rows written."""
    row = await (await connection.execute(_REFRESH)).fetchone()
    return int(row["written"]) if row else 0
