"""When GitHub's hooks are looked at, and which deliveries were asked for again, by one of all."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
_TAKE_DUE = """
INSERT INTO hybridjobs.github_looks AS look (hook, next_at)
SELECT hook, now() + %(period)s FROM unnest(%(hooks)s::text[]) AS hooks (hook)
ON CONFLICT (hook) DO UPDATE SET next_at = excluded.next_at WHERE look.next_at <= now()
RETURNING hook
"""
_PUT_OFF = """
UPDATE hybridjobs.github_looks SET next_at = greatest(next_at, now() + %s) WHERE hook = %s
"""
_UNTIL_DUE = """
SELECT extract(epoch FROM min(next_at) - now())::float8 AS seconds
FROM hybridjobs.github_looks WHERE hook = ANY(%s)
"""
# The wait doubles each time: a delivery that cannot succeed is not asked for every few minutes.
_ASK = """
INSERT INTO hybridjobs.github_redeliveries AS asked (hook, guid) VALUES (%(hook)s, %(guid)s)
ON CONFLICT (hook, guid) DO UPDATE SET times = asked.times + 1, asked_at = now()
WHERE asked.asked_at <= now() - least(%(wait)s * 2 ^ least(asked.times - 1, 20), %(max_wait)s)
  AND (%(give_up)s::interval IS NULL OR asked.first_asked_at > now() - %(give_up)s)
RETURNING guid
"""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a delivery that was asked for is left alone, and when it is no longer asked for.

    `wait` after the first time, doubled after each, up to `max_wait`; `give_up` after the first
    time, None: never.
    """

    wait: timedelta
    max_wait: timedelta
    give_up: timedelta | None = None


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


async def take_due(
    connection: AsyncConnection[DictRow], hooks: Sequence[str], period: timedelta
) -> frozenset[str]:
    """Take it on oneself to look at those of the hooks that are due; a period later all are."""
    cursor = await connection.execute(_TAKE_DUE, {"hooks": list(hooks), "period": period})
    return frozenset(row["hook"] for row in await cursor.fetchall())


async def put_off(connection: AsyncConnection[DictRow], hook: str, wait: timedelta) -> None:
    """Nobody looks at the hook before the wait is over."""
    await connection.execute(_PUT_OFF, [wait, hook])


async def seconds_until_due(connection: AsyncConnection[DictRow], hooks: Sequence[str]) -> float:
    """Until the first of the hooks is due; 0 or less: one is."""
    row = await (await connection.execute(_UNTIL_DUE, [list(hooks)])).fetchone()
    return 0.0 if row is None or row["seconds"] is None else float(row["seconds"])


async def may_ask(
    connection: AsyncConnection[DictRow], hook: str, guid: str, patience: Patience
) -> bool:
    """Take it on oneself to ask for a delivery; False: it was asked for too short a time ago, or
    has been for too long."""
    parameters = {
        "hook": hook,
        "guid": guid,
        "wait": patience.wait,
        "max_wait": patience.max_wait,
        "give_up": patience.give_up,
    }
    return await (await connection.execute(_ASK, parameters)).fetchone() is not None
