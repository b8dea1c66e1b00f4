"""Dispatch as rows: which queued jobs get one of the places in the cluster."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.admission import Candidate, Key, Line, admit, key_of
from hybridjobs.model import Claim
from hybridjobs.store.parking import forget, park, serve

_LOCK = 0x636C61696D  # "claim"
_REDRIVE_AFTER = timedelta(seconds=5)
_PROMOTED = 1000  # scheduled rows that come due, a claim
_INLINE_LOCK_TIMEOUT = "500ms"  # a claim takes some ms

_LOCK_IN_TIME = "SELECT set_config('lock_timeout', %s, true), pg_advisory_xact_lock(%s)"
_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(%s) AS held"
_LINK = "SELECT hybridjobs.link_dependencies()"
# An empty index costs nothing to look into; a full one is emptied from its due end.
_PROMOTE = """
UPDATE hybridjobs.background_jobs SET stage = 'ready'
WHERE id IN (SELECT id FROM hybridjobs.background_jobs
             WHERE stage = 'scheduled' AND run_at <= now()
             ORDER BY run_at LIMIT %s FOR UPDATE SKIP LOCKED)
"""
_LIVE = """
SELECT job.type, job.concurrency_key, count(*) AS live,
       count(*) FILTER (WHERE attempt.runner = 'pod') AS pods
FROM hybridjobs.job_attempts attempt JOIN hybridjobs.background_jobs job ON job.id = attempt.job_id
WHERE attempt.ended_at IS NULL
GROUP BY job.type, job.concurrency_key
"""
_TYPES = """
SELECT type,
       (spec->'concurrency'->>'limit')::int AS concurrency, spec->'concurrency'->>'key' AS by_key,
       (spec->'throttle'->>'limit')::int AS throttle,
       (spec->'throttle'->>'periodSeconds')::int AS period, spec->'throttle'->>'key' AS throttle_key
FROM hybridjobs.job_types
WHERE paused_at IS NULL AND deleted_at IS NULL
  AND NOT EXISTS (SELECT FROM hybridjobs.queue_settings WHERE paused_at IS NOT NULL)
"""
# Starts within the period, of whole types (key '') and of the keys named.
_STARTS = """
SELECT start.type, start.concurrency_key, count(*) AS starts,
       min(start.started_at) + make_interval(secs => asked.period) AS frees_at
FROM unnest(%(types)b::text[], %(keys)b::text[], %(periods)b::int4[]) AS asked (type, key, period)
JOIN hybridjobs.throttle_starts start
     ON start.type = asked.type AND start.concurrency_key = asked.key
    AND start.started_at > now() - make_interval(secs => asked.period)
GROUP BY start.type, start.concurrency_key, asked.period
"""


def _candidates(locking: str = "") -> str:
    """The head of each line, and of each parked key that is not known to be full; a parked key
    without rows comes as itself alone."""
    return f"""
SELECT job.id, job.type, job.order_key, job.concurrency_key, false AS parked
FROM unnest(%(types)b::text[], %(places)b::int4[]) AS line (type, places)
CROSS JOIN LATERAL (
    SELECT id, type, order_key, concurrency_key FROM hybridjobs.background_jobs
    WHERE stage = 'ready' AND type = line.type AND run_at <= now()
    ORDER BY order_key, id LIMIT line.places {locking}
) job
UNION ALL
SELECT job.id, line.type, job.order_key, parked.concurrency_key, true
FROM unnest(%(types)b::text[], %(places)b::int4[], %(per_key)b::int4[])
     AS line (type, places, per_key)
CROSS JOIN LATERAL (
    SELECT parked.concurrency_key FROM hybridjobs.parked_keys parked
    WHERE parked.type = line.type AND parked.look_at <= now()
      AND NOT EXISTS (SELECT FROM unnest(%(full_types)b::text[], %(full_keys)b::text[])
                                  AS busy (type, key)
                      WHERE busy.type = line.type AND busy.key = parked.concurrency_key)
    ORDER BY parked.look_at LIMIT line.places
) parked
LEFT JOIN LATERAL (
    SELECT id, order_key FROM hybridjobs.background_jobs
    WHERE stage = 'parked' AND type = line.type AND concurrency_key = parked.concurrency_key
    ORDER BY order_key, id LIMIT least(line.places, line.per_key) {locking}
) job ON true
"""  # noqa: S608 - of constants


_CANDIDATES = _candidates()
# Behind rows that others hold, however many. Each is locked, which costs too much for every claim.
_FREE_CANDIDATES = _candidates("FOR UPDATE SKIP LOCKED")
_IN_LINE = """
SELECT id, type, order_key, concurrency_key FROM hybridjobs.background_jobs
WHERE id = %s AND stage = 'ready'
"""
# With a lease the attempt is one of the calling process, and has begun.
_CLAIM = """
WITH chosen AS (
    SELECT id FROM hybridjobs.background_jobs
    WHERE id = ANY(%(ids)b::uuid[]) AND stage IN ('ready', 'parked')
    ORDER BY id FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE hybridjobs.background_jobs job
    SET attempt = job.attempt + 1, dispatched_at = now(), stage = NULL,
        changed_in = pg_current_xact_id(),
        status = CASE WHEN %(lease_seconds)s::float8 IS NULL THEN job.status ELSE 'processing' END,
        started_at = CASE WHEN %(lease_seconds)s::float8 IS NOT NULL THEN now() END,
        unique_key = CASE WHEN job.unique_while = 'open' THEN job.unique_key END,
        unique_while = CASE WHEN job.unique_while = 'open' THEN job.unique_while END
    FROM chosen WHERE job.id = chosen.id
    RETURNING job.id, job.type, job.attempt, job.deadline_seconds, job.concurrency_key
), counted AS (
    INSERT INTO hybridjobs.throttle_starts (type, concurrency_key, started_at, job_id)
    SELECT type, CASE WHEN type = ANY(%(by_key)s) THEN coalesce(concurrency_key, '') ELSE '' END,
           now(), id
    FROM claimed WHERE type = ANY(%(throttled)s)
    ON CONFLICT DO NOTHING
)
INSERT INTO hybridjobs.job_attempts
    (job_id, attempt, runner, type_generation, deadline_seconds, started_at, lease_until)
SELECT claimed.id, claimed.attempt,
       CASE WHEN %(lease_seconds)s::float8 IS NULL THEN 'pod' ELSE 'inline' END,
       job_type.generation,
       coalesce(claimed.deadline_seconds, (job_type.spec->>'deadlineSeconds')::int, 900),
       CASE WHEN %(lease_seconds)s::float8 IS NOT NULL THEN now() END,
       now() + make_interval(secs => %(lease_seconds)s::float8)
FROM claimed JOIN hybridjobs.job_types job_type USING (type)
RETURNING job_id
"""
_CLAIMS = """
SELECT attempt.job_id, job.type, attempt.attempt, attempt.deadline_seconds, job.priority,
       'sha256:' || encode(sha256(convert_to(job.payload::text, 'UTF8')), 'hex') AS payload_digest,
       job.namespace, job.resource_name, job.resource_uid, job.traceparent,
       extract(epoch FROM attempt.claimed_at - greatest(job.run_at, job.created_at))::float8
           AS waited_seconds
FROM hybridjobs.job_attempts attempt JOIN hybridjobs.background_jobs job ON job.id = attempt.job_id
WHERE attempt.ended_at IS NULL AND attempt.runner = 'pod' AND attempt.dispatched_at IS NULL
  AND (attempt.job_id = ANY(%(ids)b::uuid[]) OR attempt.claimed_at < now() - %(redrive_after)s)
ORDER BY attempt.claimed_at, attempt.job_id
LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class _Limits:
    """A type's limits, as its spec has them."""

    type: str
    concurrency: int | None
    by_key: str | None
    throttle: int | None
    period: int | None
    throttle_key: str | None

    def line(self, *, places: int, live: int, starts: int) -> Line:
        """What is left of `places` when the limits of the whole type are taken off."""
        if self.concurrency is not None and self.by_key is None:
            places = min(places, self.concurrency - live)
        if self.throttle is not None and self.throttle_key is None:
            places = min(places, self.throttle - starts)
        return Line(
            self.type,
            places,
            places_per_key=None if self.by_key is None else self.concurrency,
            starts_per_key=None if self.throttle_key is None else self.throttle,
        )


async def claim(connection: AsyncConnection[DictRow], *, window: int) -> list[Claim]:
    """Open the next attempts, as many as `window` live ones allow, and return what to dispatch.

    Among them are earlier claims whose HybridJob nobody has confirmed for some seconds, as after
    a kill between commit and create. Runs in the caller's transaction; empty when another
    replica holds the claim lock, which is what makes every limit exact. One type gets half the
    window at most, so that a flood of one leaves room for the others.
    """
    lock = await (await connection.execute(_TRY_LOCK, [_LOCK])).fetchone()
    if lock is None or not lock["held"]:
        return []
    await connection.execute(_LINK)
    await connection.execute(_PROMOTE, [_PROMOTED])
    claimed, held = await _claim_in_line(connection, window, _CANDIDATES)
    if held:
        claimed += (await _claim_in_line(connection, window, _FREE_CANDIDATES))[0]
    cursor = await connection.execute(
        _CLAIMS, {"ids": claimed, "redrive_after": _REDRIVE_AFTER, "limit": window}
    )
    return [Claim(**row) for row in await cursor.fetchall()]


async def claim_inline(
    connection: AsyncConnection[DictRow], job_id: UUID, *, lease_seconds: float
) -> bool:
    """Open the job's attempt here and now, under a lease, if its type's limits have room for it.

    Runs in the caller's transaction. False: it stays in line, or somebody else has it.
    """
    await connection.execute(_LOCK_IN_TIME, [_INLINE_LOCK_TIMEOUT, _LOCK])
    row = await (await connection.execute(_IN_LINE, [job_id])).fetchone()
    if row is None:
        return False
    job = Candidate(**row)
    limits = [each for each in await _limits(connection) if each.type == job.type]
    live = await _live(connection)
    lines = await _lines(connection, limits, live, places=1, share=live.pods[job.type] + 1)
    if not lines:
        return False
    starts = await _starts_by_key(connection, limits, [job])
    started = {key: each.count for key, each in starts.items()}
    admission = admit([job], lines, places=1, live=live.by_key, started=started)
    return bool(await _open(connection, admission.chosen, limits, lease_seconds=lease_seconds))


async def _claim_in_line(
    connection: AsyncConnection[DictRow], window: int, candidates: str
) -> tuple[list[UUID], bool]:
    """The jobs whose attempts it opened, and whether others that had a place are held."""
    live = await _live(connection)
    room = window - live.pods.total()
    limits = await _limits(connection)
    if room <= 0 or not limits:
        return [], False
    lines = await _lines(connection, limits, live, places=room, share=max(1, window // 2))
    full = _full_keys(lines, live.by_key)
    heads = await _heads(connection, candidates, list(lines.values()), full)
    starts = await _starts_by_key(connection, limits, heads.candidates)
    started = {key: each.count for key, each in starts.items()}
    admission = admit(heads.candidates, lines, places=room, live=live.by_key, started=started)
    claimed = await _open(connection, admission.chosen, limits)
    frees_at = {
        key: each.frees_at
        for key, each in starts.items()
        if (limit := lines[key[0]].starts_per_key) is not None and each.count >= limit
    }
    chosen = set(admission.chosen)
    await park(connection, admission.full, frees_at)
    await serve(connection, {key_of(job) for job in heads.parked if job.id in chosen})
    await forget(connection, heads.emptied)
    return claimed, len(claimed) < len(chosen)


@dataclass(frozen=True, slots=True)
class _Live:
    """The open attempts; `pods` are those of them that take a place in the window."""

    by_key: Counter[Key]
    by_type: Counter[str]
    pods: Counter[str]


async def _live(connection: AsyncConnection[DictRow]) -> _Live:
    live = _Live(Counter(), Counter(), Counter())
    for row in await (await connection.execute(_LIVE)).fetchall():
        live.by_key[row["type"], row["concurrency_key"] or ""] += row["live"]
        live.by_type[row["type"]] += row["live"]
        live.pods[row["type"]] += row["pods"]
    return live


async def _limits(connection: AsyncConnection[DictRow]) -> list[_Limits]:
    """Those of the types that may start jobs."""
    return [_Limits(**row) for row in await (await connection.execute(_TYPES)).fetchall()]


async def _lines(
    connection: AsyncConnection[DictRow],
    limits: Sequence[_Limits],
    live: _Live,
    *,
    places: int,
    share: int,
) -> dict[str, Line]:
    """The lines that have room, each for `places` and all its live pods for `share` at most."""
    periods = {each.type: each.period for each in limits if each.throttle_key is None}
    starts = await _starts(connection, [(type_, "") for type_ in periods], periods)
    lines = [
        each.line(
            places=min(places, share - live.pods[each.type]),
            live=live.by_type[each.type],
            starts=starts[each.type, ""].count if (each.type, "") in starts else 0,
        )
        for each in limits
    ]
    return {line.type: line for line in lines if line.places > 0}


async def _open(
    connection: AsyncConnection[DictRow],
    ids: Sequence[UUID],
    limits: Sequence[_Limits],
    *,
    lease_seconds: float | None = None,
) -> list[UUID]:
    """Open the next attempt of each job; those whose rows somebody else holds are left out."""
    cursor = await connection.execute(
        _CLAIM,
        {
            "ids": ids,
            "throttled": [each.type for each in limits if each.throttle is not None],
            "by_key": [each.type for each in limits if each.throttle_key is not None],
            "lease_seconds": lease_seconds,
        },
    )
    return [row["job_id"] for row in await cursor.fetchall()]


def _full_keys(lines: Mapping[str, Line], live: Mapping[Key, int]) -> list[Key]:
    return [
        key
        for key, running in live.items()
        if (line := lines.get(key[0])) is not None
        and line.places_per_key is not None
        and running >= line.places_per_key
    ]


@dataclass(frozen=True, slots=True)
class _Starts:
    count: int
    frees_at: datetime  # when the first of them is a period ago


async def _starts_by_key(
    connection: AsyncConnection[DictRow], limits: Sequence[_Limits], jobs: Collection[Candidate]
) -> dict[Key, _Starts]:
    periods = {each.type: each.period for each in limits if each.throttle_key is not None}
    return await _starts(connection, {key_of(job) for job in jobs}, periods)


async def _starts(
    connection: AsyncConnection[DictRow], keys: Collection[Key], periods: Mapping[str, int | None]
) -> dict[Key, _Starts]:
    """How often each key has started within its type's period; those that have."""
    asked = [(type_, key, period) for type_, key in keys if (period := periods.get(type_))]
    if not asked:
        return {}
    types, names, seconds = zip(*asked, strict=True)
    cursor = await connection.execute(
        _STARTS, {"types": list(types), "keys": list(names), "periods": list(seconds)}
    )
    return {
        (row["type"], row["concurrency_key"]): _Starts(row["starts"], row["frees_at"])
        for row in await cursor.fetchall()
    }


@dataclass(frozen=True, slots=True)
class _Heads:
    """What stands first; `parked` are those candidates that do so behind their key."""

    candidates: list[Candidate]
    parked: list[Candidate]
    emptied: list[Key]


async def _heads(
    connection: AsyncConnection[DictRow],
    candidates: str,
    lines: Sequence[Line],
    full: Sequence[Key],
) -> _Heads:
    cursor = await connection.execute(
        candidates.encode(),
        {
            "types": [line.type for line in lines],
            "places": [line.places for line in lines],
            "per_key": [line.places_per_key or line.starts_per_key for line in lines],
            "full_types": [type_ for type_, _ in full],
            "full_keys": [key for _, key in full],
        },
    )
    heads = _Heads([], [], [])
    for row in await cursor.fetchall():
        parked = row.pop("parked")
        if row["id"] is None:
            heads.emptied.append((row["type"], row["concurrency_key"]))
            continue
        candidate = Candidate(**row)
        heads.candidates.append(candidate)
        if parked:
            heads.parked.append(candidate)
    return heads
