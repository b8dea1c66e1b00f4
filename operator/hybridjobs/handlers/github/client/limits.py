"""The arithmetic of rate limits. No I/O; moments are Unix seconds.

GitHub counts requests (for GraphQL: points) by token and resource within windows. Answers arrive in
any order, from many pods: within a window the least that was seen to remain holds, and a later
window replaces an earlier one.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from hybridjobs.handlers.github.client.errors import whole

# GitHub's servers name the end of one window up to a second apart; windows are a minute or more.
SAME_WINDOW_SECONDS = 2.0
# A reset is given in whole seconds, by another clock.
RESET_MARGIN_SECONDS = 1.0
# Of a token that was never used.
_ASSUMED = 5000
_MAX_RESERVE = 10
_MAX_LOW = 250
_MIN_LOW = 50
STALE_SECONDS = 5.0
_QUIET_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Limit:
    """What is known of one token and resource.

    `in_flight`: what running requests have taken, in all pods, since little remains.
    `blocked_until`: by a secondary limit.
    """

    limit: int
    remaining: int
    reset_at: float
    in_flight: int = 0
    blocked_until: float = 0.0

    @property
    def reserve(self) -> int:
        """What is never used: for whoever else has the token, and for what was miscounted."""
        return min(_MAX_RESERVE, self.limit // 20)

    def left(self, now: float) -> int:
        """How much may be used; never below 0."""
        if now >= self.reset_at:
            return self.limit - self.reserve
        return max(self.remaining - self.in_flight - self.reserve, 0)

    def is_low(self, now: float, cost: int = 1) -> bool:
        """Whether so little remains that requests of that cost must be counted in advance.

        Those of more than a point always are: a few dozen of them at once may take a whole window.
        """
        low = min(max(_MIN_LOW, self.limit // 20), _MAX_LOW, self.limit // 2)
        return now < self.reset_at and (cost > 1 or self.remaining - self.in_flight <= low)

    def merged(self, seen: "Limit") -> "Limit":
        """With what an answer told; the same whatever the order. `in_flight` stays our own."""
        blocked_until = max(self.blocked_until, seen.blocked_until)
        later, earlier = (self, seen) if self.reset_at >= seen.reset_at else (seen, self)
        if later.reset_at - earlier.reset_at > SAME_WINDOW_SECONDS:
            return replace(later, blocked_until=blocked_until)
        return Limit(
            later.limit,
            min(self.remaining, seen.remaining),
            later.reset_at,
            self.in_flight,
            blocked_until,
        )


def unknown(blocked_until: float) -> Limit:
    """Of a token that was never used, but is blocked."""
    return Limit(_ASSUMED, _ASSUMED, 0.0, blocked_until=blocked_until)


def from_headers(headers: Mapping[str, str]) -> Limit | None:
    """What x-ratelimit-* tell; None where they are missing or no numbers."""
    limit = whole(headers.get("x-ratelimit-limit"))
    remaining = whole(headers.get("x-ratelimit-remaining"))
    reset = whole(headers.get("x-ratelimit-reset"))
    if limit is None or remaining is None or reset is None:
        return None
    return Limit(limit, max(remaining, 0), float(reset))


def from_graphql(told: Any) -> Limit | None:  # noqa: ANN401 - as it came
    """What `rateLimit { limit remaining resetAt }` tells."""
    try:
        reset = datetime.fromisoformat(told["resetAt"]).timestamp()
        return Limit(int(told["limit"]), max(int(told["remaining"]), 0), reset)
    except (TypeError, KeyError, ValueError):
        return None


def is_news(written: Limit | None, known: Limit, written_at: float, now: float) -> bool:
    """Whether others must be told: what they read may be 2 % or ten seconds old, no more."""
    if written is None or known.reset_at - written.reset_at > SAME_WINDOW_SECONDS:
        return True
    if known.blocked_until > written.blocked_until:
        return True
    used = written.remaining - known.remaining
    if known.is_low(now):
        return used > 0
    return used > known.limit // 50 or (used > 0 and now - written_at > _QUIET_SECONDS)


@dataclass(frozen=True, slots=True)
class Dry:
    """No token has anything left until then."""

    until: float
    secondary: bool


def choose(
    tokens: Sequence[bytes],
    known: Callable[[bytes], Limit | None],
    cost: int,
    now: float,
    preferred: Set[bytes] = frozenset(),
) -> bytes | Dry:
    """The token with the most left that can pay `cost`; else when the first one can.

    Tokens are told by digest. A preferred one, whose answer will probably cost nothing, goes first
    unless little remains of it.
    """
    best: bytes | None = None
    best_rank = (False, 0)
    dry: Dry | None = None
    for token in tokens:
        limit = known(token)
        left = (_ASSUMED if limit is None else limit.left(now)) - cost
        until = 0.0 if limit is None else _usable_at(limit, left, now)
        if until > now:
            assert limit is not None
            candidate = Dry(until, secondary=limit.blocked_until > now)
            if dry is None or candidate.until < dry.until:
                dry = candidate
            continue
        rank = (token in preferred and not (limit is not None and limit.is_low(now)), left)
        if best is None or rank > best_rank:
            best, best_rank = token, rank
    if best is not None:
        return best
    assert dry is not None
    return dry


def _usable_at(limit: Limit, left: int, now: float) -> float:
    blocked_until = limit.blocked_until
    # More than a whole window holds is asked for all the same: GitHub will say what it thinks.
    if left < 0 and now < limit.reset_at:
        return max(blocked_until, limit.reset_at)
    return blocked_until
