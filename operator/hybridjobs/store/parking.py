"""Rows whose concurrency key is full step out of their line, and come back a key at a time.

All of it runs in the claim's transaction, under its lock.
"""

from collections.abc import Collection, Mapping
from datetime import datetime

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.admission import Key

_MAX_PARKED = 5000  # rows that leave a line, a claim

_PARK = """
WITH busy AS (
    SELECT * FROM unnest(%(types)b::text[], %(keys)b::text[], %(look_at)b::timestamptz[])
         AS busy (type, key, look_at)
), noted AS (
    INSERT INTO hybridjobs.parked_keys (type, concurrency_key, look_at)
    SELECT type, key, coalesce(look_at, now()) FROM busy
    ON CONFLICT (type, concurrency_key) DO UPDATE SET look_at = excluded.look_at
)
UPDATE hybridjobs.background_jobs
SET stage = 'parked', concurrency_key = coalesce(concurrency_key, '')
WHERE id IN (
    SELECT job.id FROM (SELECT DISTINCT type FROM busy) AS line
    CROSS JOIN LATERAL (
        SELECT id, coalesce(concurrency_key, '') AS key FROM hybridjobs.background_jobs
        WHERE stage = 'ready' AND type = line.type AND run_at <= now()
        ORDER BY order_key, id LIMIT %(at_most)s FOR UPDATE SKIP LOCKED
    ) job JOIN busy ON busy.type = line.type AND busy.key = job.key)
"""
# Those that gave a job now come last: every key has its turn.
_TURN = """
UPDATE hybridjobs.parked_keys parked SET look_at = now()
FROM unnest(%(types)b::text[], %(keys)b::text[]) AS served (type, key)
WHERE parked.type = served.type AND parked.concurrency_key = served.key
"""
# Not those that an insert is reading; and, by a statement of its own, which sees what was
# committed before the locks were had, not those that have rows after all.
_EMPTIED = """
SELECT parked.type, parked.concurrency_key FROM hybridjobs.parked_keys parked
JOIN unnest(%(types)b::text[], %(keys)b::text[]) AS empty (type, key)
     ON parked.type = empty.type AND parked.concurrency_key = empty.key
FOR UPDATE OF parked SKIP LOCKED
"""
_UNPARK = """
DELETE FROM hybridjobs.parked_keys parked
USING unnest(%(types)b::text[], %(keys)b::text[]) AS locked (type, key)
WHERE parked.type = locked.type AND parked.concurrency_key = locked.key
  AND NOT EXISTS (SELECT FROM hybridjobs.background_jobs job
                  WHERE job.stage = 'parked' AND job.type = locked.type
                    AND job.concurrency_key = locked.key)
"""


async def park(
    connection: AsyncConnection[DictRow], full: Collection[Key], frees_at: Mapping[Key, datetime]
) -> None:
    """Take the rows of `full` keys out of their lines.

    A key is looked at again by the next claim or, where throttled, at the time in `frees_at`.
    """
    if full:
        look_at = [frees_at.get(key) for key in full]
        await connection.execute(
            _PARK, {**_columns(full), "look_at": look_at, "at_most": _MAX_PARKED}
        )


async def serve(connection: AsyncConnection[DictRow], served: Collection[Key]) -> None:
    """Put the keys that gave a job behind those that wait to."""
    if served:
        await connection.execute(_TURN, _columns(served))


async def forget(connection: AsyncConnection[DictRow], emptied: Collection[Key]) -> None:
    """Forget the keys that have no rows any more, unless an insert is about to give them one."""
    if not emptied:
        return
    locked = await (await connection.execute(_EMPTIED, _columns(emptied))).fetchall()
    if locked:
        keys = [(row["type"], row["concurrency_key"]) for row in locked]
        await connection.execute(_UNPARK, _columns(keys))


def _columns(keys: Collection[Key]) -> dict[str, list[str]]:
    return {"types": [type_ for type_, _ in keys], "keys": [key for _, key in keys]}
