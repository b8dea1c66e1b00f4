"""Which deliveries GitHub was asked for again, by whom one at a time."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.errors import DatabaseUnavailable
from hybridjobs.store.database import connect

_LOCK = 0x72656465_6C697665  # "redelive"

_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(%s) AS held"
_ARRIVED = """
SELECT DISTINCT key FROM hybridjobs.background_jobs
WHERE source = %(source)s AND key = ANY(%(guids)s)
"""
# The wait doubles each time: a delivery that cannot succeed is not asked for every few minutes.
_ASK = """
INSERT INTO hybridjobs.github_redeliveries AS asked (hook, guid) VALUES (%(hook)s, %(guid)s)
ON CONFLICT (hook, guid) DO UPDATE SET times = asked.times + 1, asked_at = now()
WHERE asked.asked_at <= now() - least(%(wait)s * 2 ^ least(asked.times - 1, 20), %(max_wait)s)
RETURNING guid
"""


@asynccontextmanager
async def alone(url: str) -> AsyncIterator[bool]:
    """Whether nobody else is in such a block; if so, nobody can be until it ends."""
    try:
        connection = await connect(url)
        async with connection, connection.transaction():
            [lock] = await (await connection.execute(_TRY_LOCK, [_LOCK])).fetchall()
            yield bool(lock["held"])
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(f"the database does not answer: {error}") from error


async def arrived(
    connection: AsyncConnection[DictRow], source: str, guids: Sequence[str]
) -> frozenset[str]:
    """Those of the deliveries that have their jobs, whatever their sender believes."""
    cursor = await connection.execute(_ARRIVED, {"source": source, "guids": list(guids)})
    return frozenset(row["key"] for row in await cursor.fetchall())


async def may_ask(
    connection: AsyncConnection[DictRow], hook: str, guid: str, waits: tuple[timedelta, timedelta]
) -> bool:
    """Take it on oneself to ask for a delivery; False: it was asked for too short a time ago.

    `waits`: that time after the first try, which doubles with each, and the most that it becomes.
    """
    parameters = {"hook": hook, "guid": guid, "wait": waits[0], "max_wait": waits[1]}
    return await (await connection.execute(_ASK, parameters)).fetchone() is not None
