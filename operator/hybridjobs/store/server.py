"""What the database server says of itself, for `hybridjobs doctor`."""

from dataclasses import dataclass
from datetime import datetime

from psycopg import AsyncConnection
from psycopg.rows import DictRow, class_row

_FACTS = """
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::integer / 10000 AS major,
       clock_timestamp() AS now, pg_is_in_recovery() AS is_standby,
       current_setting('fsync') = 'on' AS fsync,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('synchronous_standby_names') AS synchronous_standby_names
"""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Its version, its clock, and what its commits are worth to this user."""

    version: str
    major: int
    now: datetime
    is_standby: bool
    fsync: bool
    synchronous_commit: str
    synchronous_standby_names: str


async def server_facts(connection: AsyncConnection[DictRow]) -> ServerFacts:
    """Asked of the server now."""
    async with connection.cursor(row_factory=class_row(ServerFacts)) as cursor:
        facts = await (await cursor.execute(_FACTS)).fetchone()
    assert facts is not None
    return facts
