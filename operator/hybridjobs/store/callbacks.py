"""`callback_deliveries`: what jobs that ended have to tell, and how far that has come.

A try is claimed under a lease, and its number fences what is recorded of it: a process that was
killed, or thought dead, neither loses a delivery nor overrules who took it over.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow, class_row
from psycopg.types.json import Jsonb

from hybridjobs.store.conditions import given_conditions
from hybridjobs.store.locks import PATIENCE

KEPT_TRIES = 20

# From one line to the next by the index: what waits in each costs nothing to the others. Who is
# locked, another replica is about to take.
_CLAIM = """
WITH RECURSIVE line AS (
    (SELECT host FROM hybridjobs.callback_deliveries WHERE status = 'pending'
     ORDER BY host LIMIT 1)
    UNION ALL
    SELECT (SELECT next.host FROM hybridjobs.callback_deliveries next
            WHERE next.status = 'pending' AND next.host > line.host
            ORDER BY next.host LIMIT 1)
    FROM line WHERE line.host IS NOT NULL
), due AS (
    SELECT head.id
    FROM line
    LEFT JOIN unnest(%(hosts)s::text[], %(sends)s::int4[]) AS busy (host, sends) USING (host)
    CROSS JOIN LATERAL (
        SELECT id, next_at FROM hybridjobs.callback_deliveries
        WHERE status = 'pending' AND host = line.host AND next_at <= now()
        ORDER BY next_at LIMIT greatest(%(per_host)s - coalesce(busy.sends, 0), 0)
    ) head
    ORDER BY head.next_at LIMIT %(limit)s
), chosen AS (
    SELECT id FROM hybridjobs.callback_deliveries
    WHERE id = ANY(ARRAY(SELECT id FROM due)) AND status = 'pending' AND next_at <= now()
    FOR UPDATE SKIP LOCKED
)
UPDATE hybridjobs.callback_deliveries delivery
SET attempts = attempts + 1, next_at = now() + %(lease)s, lease_until = now() + %(lease)s
FROM chosen WHERE delivery.id = chosen.id
RETURNING delivery.id, job_id, host, url, secret, body, attempts AS attempt, failures, give_up_at,
          (SELECT traceparent FROM hybridjobs.background_jobs job
           WHERE job.id = delivery.job_id) AS traceparent
"""
_RECORD = f"""
UPDATE hybridjobs.callback_deliveries
SET status = %(status)s, lease_until = NULL,
    next_at = now() + coalesce(%(wait)s::interval, interval '0'),
    failures = CASE WHEN %(status)s = 'delivered' THEN 0 ELSE failures + 1 END,
    last_code = %(code)s, last_error = %(error)s, response = %(response)s,
    delivered_at = CASE WHEN %(status)s = 'delivered' THEN now() ELSE delivered_at END,
    tries = (SELECT jsonb_agg(entry ORDER BY place)
             FROM (SELECT entry, place
                   FROM jsonb_array_elements(tries || %(entry)s)
                        WITH ORDINALITY AS tried (entry, place)
                   ORDER BY place DESC LIMIT %(kept)s) AS last)
FROM {PATIENCE}
WHERE id = %(id)s AND attempts = %(attempt)s AND status = 'pending'
"""  # noqa: S608 - of constants
_REDELIVER = """
UPDATE hybridjobs.callback_deliveries
SET status = 'pending', failures = 0, next_at = now(), give_up_at = now() + interval '3 days',
    lease_until = NULL
WHERE id = %s AND (lease_until IS NULL OR lease_until < now())
"""
_SUMMARY = """
    id, job_id, type, event, url, status, attempts, last_code, last_error, created_at,
    CASE WHEN status = 'pending' THEN next_at END AS next_at, delivered_at"""
_GET = f"""
SELECT {_SUMMARY}, secret, response, tries, body FROM hybridjobs.callback_deliveries WHERE id = %s
"""  # noqa: S608 - of constants
_LIST = """
SELECT {summary} FROM hybridjobs.callback_deliveries
WHERE {conditions}
ORDER BY id DESC LIMIT %(limit)s
"""
_CONDITIONS = {
    "job_id": "job_id = %(job_id)s",
    "type": "type = %(type)s",
    "status": "status = %(status)s",
    "before": "id < %(before)s",
}


class DeliveryStatus(StrEnum):
    """Where a delivery stands: `callback_deliveries.status`."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"  # given up
    DISABLED = "disabled"  # the receiver said 410: nobody wants it


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery to try now, for which this process holds the lease."""

    id: UUID
    job_id: UUID
    host: str
    url: str
    secret: str
    body: str
    attempt: int
    failures: int
    give_up_at: datetime
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a try. `wait` is how long until the next one, where it stays pending."""

    status: DeliveryStatus
    at: datetime
    duration_ms: int
    code: int | None = None
    error: str | None = None
    response: str | None = None
    wait: timedelta | None = None


@dataclass(frozen=True, slots=True)
class DeliverySummary:
    """A line of a listing. `next_at`: when a pending one is tried again, or its lease ends."""

    id: UUID
    job_id: UUID
    type: str
    event: str
    url: str
    status: str
    attempts: int
    last_code: int | None
    last_error: str | None
    created_at: datetime
    next_at: datetime | None
    delivered_at: datetime | None


@dataclass(frozen=True, slots=True)
class Delivery(DeliverySummary):
    """A row of `callback_deliveries`. `body` is JSON text, exact; `secret` a name.

    `tries` has an object for each of the last tries: attempt, at, durationMs, code, error.
    """

    secret: str
    response: str | None
    tries: list[dict[str, Any]]
    body: str


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries: those for which all hold that are given."""

    job_id: UUID | None = None
    type: str | None = None
    status: str | None = None
    before: UUID | None = None


async def claim_deliveries(
    connection: AsyncConnection[DictRow],
    *,
    sends: Mapping[str, int],
    per_host: int,
    limit: int,
    lease: timedelta,
) -> list[Due]:
    """Take up to `limit` deliveries that are due, and no more than `per_host` for one host.

    `sends` says how many each host has under way here.
    """
    parameters = {
        "hosts": list(sends),
        "sends": list(sends.values()),
        "per_host": per_host,
        "limit": limit,
        "lease": lease,
    }
    cursor = await connection.execute(_CLAIM, parameters)
    return [Due(**row) for row in await cursor.fetchall()]


async def record_try(connection: AsyncConnection[DictRow], due: Due, tried: Tried) -> bool:
    """Note the try and what follows; False: somebody else has taken the delivery over."""
    entry = {
        "attempt": due.attempt,
        "at": tried.at.isoformat(),
        "durationMs": tried.duration_ms,
        "code": tried.code,
        "error": tried.error,
    }
    cursor = await connection.execute(
        _RECORD,
        {
            "id": due.id,
            "attempt": due.attempt,
            "status": tried.status.value,
            "wait": tried.wait,
            "code": tried.code,
            "error": tried.error,
            "response": tried.response,
            "entry": Jsonb([entry]),
            "kept": KEPT_TRIES,
        },
    )
    return cursor.rowcount == 1


async def redeliver(connection: AsyncConnection[DictRow], delivery_id: UUID) -> bool:
    """Try once more, at once and for another three days; False: unknown, or being sent now."""
    return (await connection.execute(_REDELIVER, [delivery_id])).rowcount == 1


async def get_delivery(connection: AsyncConnection[DictRow], delivery_id: UUID) -> Delivery | None:
    """The delivery with its last tries; None where there is none of that id."""
    async with connection.cursor(row_factory=class_row(Delivery)) as cursor:
        return await (await cursor.execute(_GET, [delivery_id])).fetchone()


async def list_deliveries(
    connection: AsyncConnection[DictRow], which: DeliveryFilter, *, limit: int
) -> list[DeliverySummary]:
    """A page of deliveries, the newest first; `before` is the id the page before ended with."""
    conditions, given = given_conditions(_CONDITIONS, asdict(which))
    statement = _LIST.format(summary=_SUMMARY, conditions=conditions)
    async with connection.cursor(row_factory=class_row(DeliverySummary)) as cursor:
        return await (await cursor.execute(statement, {**given, "limit": limit})).fetchall()
