"""Rate limits as all pods see them: the table `github.rate_limits`.

While much remains, answers' headers keep this process right, and the table is written when it has
become wrong by 2 % (or ten seconds), and read every five seconds. When little remains, every
request is counted in the table before it is made (`in_flight`), so that pods together never go
below the reserve. What a killed pod had counted there is lost until the window's end. Where a
window has ended, one request goes ahead and begins the next one (`opening_until`), in which the
others are counted.

The connection is the job's. It is used only while no transaction is open on it: what is learned
meanwhile is written afterwards, and never within the handler's transaction.
"""

import asyncio
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from hybridjobs.handlers.github.client.errors import Limited
from hybridjobs.handlers.github.client.limits import (
    RESET_MARGIN_SECONDS,
    SAME_WINDOW_SECONDS,
    STALE_SECONDS,
    Dry,
    Limit,
    choose,
    is_news,
    unknown,
)
from hybridjobs.handlers.github.client.turns import Turns
from hybridjobs.sdk import RetryLater

# In the order of Limit's fields.
_COLUMNS = """request_limit, remaining, extract(epoch FROM reset_at)::float8, in_flight,
    coalesce(extract(epoch FROM blocked_until)::float8, 0)"""
_READ = f"""
SELECT token_sha256, resource, {_COLUMNS}
FROM github.rate_limits WHERE token_sha256 = ANY(%(tokens)s)
"""  # noqa: S608 - of constants
_TAKE = f"""
UPDATE github.rate_limits SET in_flight = in_flight + %(cost)s
WHERE token_sha256 = %(token)s AND resource = %(resource)s
  AND reset_at > to_timestamp(%(now)s)
  AND remaining - in_flight - %(cost)s >= %(reserve)s
RETURNING {_COLUMNS}
"""  # noqa: S608 - of constants
_RELEASE = f"""
UPDATE github.rate_limits SET in_flight = greatest(in_flight - %(cost)s, 0)
WHERE token_sha256 = %(token)s AND resource = %(resource)s
  AND abs(extract(epoch FROM reset_at) - %(window)s) <= %(same)s
RETURNING {_COLUMNS}
"""  # noqa: S608 - of constants
_OPEN = f"""
UPDATE github.rate_limits SET opening_until = clock_timestamp() + %(lease)s * interval '1 s'
WHERE token_sha256 = %(token)s AND resource = %(resource)s
  AND reset_at <= to_timestamp(%(now)s)
  AND (opening_until > clock_timestamp()) IS NOT TRUE
RETURNING {_COLUMNS}
"""  # noqa: S608 - of constants
_NOT_OPENED = f"""
UPDATE github.rate_limits SET opening_until = NULL
WHERE token_sha256 = %(token)s AND resource = %(resource)s
RETURNING {_COLUMNS}
"""  # noqa: S608 - of constants
# As Limit.merged; what ended is taken from `in_flight` in the window in which it was counted.
_RECORD = f"""
INSERT INTO github.rate_limits AS known
    (token_sha256, resource, request_limit, remaining, reset_at, blocked_until)
VALUES (%(token)s, %(resource)s, %(limit)s, %(remaining)s, to_timestamp(%(reset_at)s),
        to_timestamp(nullif(%(blocked_until)s, 0)))
ON CONFLICT (token_sha256, resource) DO UPDATE SET
    request_limit = CASE WHEN excluded.reset_at >= known.reset_at
        THEN excluded.request_limit ELSE known.request_limit END,
    remaining = CASE
        WHEN excluded.reset_at > known.reset_at + make_interval(secs => %(same)s)
        THEN excluded.remaining
        WHEN excluded.reset_at < known.reset_at - make_interval(secs => %(same)s)
        THEN known.remaining
        ELSE least(excluded.remaining, known.remaining) END,
    in_flight = CASE
        WHEN excluded.reset_at > known.reset_at + make_interval(secs => %(same)s) THEN 0
        WHEN abs(extract(epoch FROM known.reset_at) - %(window)s) <= %(same)s
        THEN greatest(known.in_flight - %(cost)s, 0)
        ELSE known.in_flight END,
    reset_at = greatest(excluded.reset_at, known.reset_at),
    blocked_until = greatest(excluded.blocked_until, known.blocked_until),
    opening_until = CASE WHEN NOT %(opens)s THEN known.opening_until END,
    observed_at = now()
RETURNING {_COLUMNS}
"""  # noqa: S608 - of constants

# The row of a token's secondary limits, which hold for all resources.
_ANY = "*"
# Who begins a window may have been killed: after so long another one does.
OPENING_SECONDS = 5.0
_LOOK_SECONDS = 0.2

_Key = tuple[bytes, str]


@dataclass(frozen=True, slots=True)
class Taken:
    """The right to one request; `window` ends at the reset that it is counted to, if at all.

    `opens`: it begins a window.
    """

    token: bytes
    resource: str
    cost: int
    window: float | None
    opens: bool = False


class Ledger:
    """The limits of some tokens, by digest."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._known: dict[_Key, Limit] = {}
        self._written: dict[_Key, tuple[Limit, float]] = {}
        self._read_at: dict[bytes, float] = {}
        self._owed: list[Taken] = []

    async def take(
        self,
        tokens: Sequence[bytes],
        resource: str,
        cost: int = 1,
        preferred: Set[bytes] = frozenset(),
        told: str | None = None,
    ) -> Taken:
        """The right to a request by the best of `tokens`; RetryLater when all are limited.

        `told`: what GitHub said of the limit that was just met.
        """
        fresh = await self._refresh(tokens)
        patient_until = time.time() + OPENING_SECONDS
        while True:
            now = time.time()
            chosen = choose(tokens, lambda token: self.limit(token, resource), cost, now, preferred)
            if isinstance(chosen, Dry):
                if not fresh:  # others may be done with what they had in flight
                    fresh = await self._read(tokens)
                    continue
                raise _later(chosen, resource, now, told)
            limit = self._known.get((chosen, resource))
            if limit is not None and limit.reset_at <= now < patient_until:
                opened = await self._open(Taken(chosen, resource, cost, None, opens=True), now)
                if opened is not None:
                    return opened
                await asyncio.sleep(_LOOK_SECONDS)
                fresh = await self._read(tokens)
                continue
            if limit is None or not limit.is_low(now, cost):
                return Taken(chosen, resource, cost, None)
            taken = await self._take(Taken(chosen, resource, cost, limit.reset_at), limit, now)
            if taken is not None:
                return taken
            fresh = await self._read(tokens)

    async def give_back(self, taken: Taken) -> None:
        """The request was not answered."""
        if taken.window is None and not taken.opens:
            return
        statement = _NOT_OPENED if taken.opens else _RELEASE
        rows = await self._turns.execute(statement, _values(taken))
        if rows is None:
            self._owed.append(taken)
        else:
            self._learn((taken.token, taken.resource), rows)

    async def settle(self, taken: Taken, seen: Limit | None, resource: str | None = None) -> None:
        """The request was answered; `seen`: the limits then, of `resource` if GitHub named it."""
        if seen is None or (resource is not None and resource != taken.resource):
            await self.give_back(taken)
            taken = Taken(taken.token, resource or taken.resource, taken.cost, None)
        if seen is None:
            return
        key = taken.token, taken.resource
        known = self._known.get(key)
        self._known[key] = seen if known is None else known.merged(seen)
        if taken.window is not None or taken.opens or self._is_news(key):
            await self._write(key, taken)

    async def block(self, taken: Taken, limit: Limited) -> None:
        """A request met a rate limit: no more of them until it ends."""
        key = taken.token, _ANY if limit.secondary else taken.resource
        # Even where GitHub's clock is behind ours, so that this ends.
        until = time.time() + max(limit.seconds, RESET_MARGIN_SECONDS)
        known = self._known.get(key) or unknown(0.0)
        self._known[key] = replace(known, blocked_until=max(known.blocked_until, until))
        await self._write(key)

    async def flush(self) -> None:
        """Write what others need to know."""
        owed, self._owed = self._owed, []
        for taken in owed:
            await self.give_back(taken)
        for key in list(self._known):
            if self._is_news(key):
                await self._write(key)

    def limit(self, token: bytes, resource: str) -> Limit | None:
        """What is known of a token, the secondary limits among it."""
        own, all_ = self._known.get((token, resource)), self._known.get((token, _ANY))
        if all_ is None:
            return own
        if own is None:
            return unknown(all_.blocked_until)
        return replace(own, blocked_until=max(own.blocked_until, all_.blocked_until))

    async def _take(self, taken: Taken, limit: Limit, now: float) -> Taken | None:
        key = taken.token, taken.resource
        if self._is_news(key):
            await self._write(key)
        more = {"now": now, "reserve": limit.reserve}
        rows = await self._turns.execute(_TAKE, _values(taken) | more)
        if rows is None:
            return replace(taken, window=None)
        self._learn(key, rows)
        return taken if rows else None

    async def _open(self, taken: Taken, now: float) -> Taken | None:
        """The right to begin a window; None: somebody else is about to, or has."""
        key = taken.token, taken.resource
        if self._is_news(key):
            await self._write(key)
        rows = await self._turns.execute(_OPEN, _values(taken) | {"now": now})
        if rows is None:
            return replace(taken, opens=False)
        self._learn(key, rows)
        return taken if rows else None

    async def _refresh(self, tokens: Sequence[bytes]) -> bool:
        now = time.time()
        if all(now - self._read_at.get(token, 0.0) < STALE_SECONDS for token in tokens):
            return False
        return await self._read(tokens)

    async def _read(self, tokens: Sequence[bytes]) -> bool:
        """Always True: there is nothing fresher, even while the table is out of reach."""
        rows = await self._turns.execute(_READ, {"tokens": list(tokens)})
        if rows is not None:
            for token, resource, *row in rows:
                self._learn((bytes(token), resource), [row])
            now = time.time()
            self._read_at |= dict.fromkeys(tokens, now)
        return True

    async def _write(self, key: _Key, taken: Taken | None = None) -> None:
        known = self._known[key]
        counted = taken or Taken(*key, 0, None)
        values = _values(counted) | {
            "limit": known.limit,
            "remaining": known.remaining,
            "reset_at": known.reset_at,
            "blocked_until": known.blocked_until,
        }
        rows = await self._turns.execute(_RECORD, values)
        if rows is not None:
            self._learn(key, rows)
        elif counted.window is not None or counted.opens:
            self._owed.append(counted)

    def _learn(self, key: _Key, rows: Sequence[Any]) -> None:
        """What the table says of it now."""
        for row in rows:
            told = Limit(*row)
            known = self._known.get(key)
            merged = told if known is None else known.merged(told)
            is_now = merged.reset_at - told.reset_at <= SAME_WINDOW_SECONDS
            in_flight = told.in_flight if is_now else 0
            self._known[key] = replace(merged, in_flight=in_flight)
            self._written[key] = told, time.time()

    def _is_news(self, key: _Key) -> bool:
        written, written_at = self._written.get(key, (None, 0.0))
        return is_news(written, self._known[key], written_at, time.time())


def _values(taken: Taken) -> dict[str, Any]:
    return {
        "token": taken.token,
        "resource": taken.resource,
        "cost": taken.cost,
        "window": taken.window,
        "opens": taken.opens,
        "same": SAME_WINDOW_SECONDS,
        "lease": OPENING_SECONDS,
    }


def _later(dry: Dry, resource: str, now: float, told: str | None) -> RetryLater:
    moment = datetime.fromtimestamp(dry.until, UTC).isoformat(timespec="seconds")
    if told is None:
        told = (
            "asked to wait by a secondary limit"
            if dry.secondary
            else f"nothing left of {resource} for any token"
        )
    seconds = dry.until - now + RESET_MARGIN_SECONDS
    return RetryLater(seconds, f"GitHub's rate limit: {told}, until {moment}")
