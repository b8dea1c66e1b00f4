"""How much one caller may ask for, so that the others are served too."""

from collections.abc import Callable
from math import ceil
from time import monotonic

from hybridjobs.ingress.problems import Refused

_BURST_SECONDS = 2.0
_KEYS = 10_000


class RateLimit:
    """A token bucket for each key: `per_second` requests, and two seconds' worth at once.

    0: no limit. Each replica counts for itself.
    """

    def __init__(self, per_second: float, *, clock: Callable[[], float] = monotonic) -> None:
        self._spacing = 1 / per_second if per_second else 0.0
        self._per_second = per_second
        self._clock = clock
        # When each bucket will be full again (GCRA: https://www.itu.int/rec/T-REC-I.371).
        self._full_at: dict[str, float] = {}

    def take(self, key: str) -> None:
        """Let a request of the key through; Refused (429) where its bucket is empty."""
        if not self._spacing:
            return
        now = self._clock()
        full_at = max(self._full_at.get(key, now), now) + self._spacing
        over = full_at - now - max(_BURST_SECONDS, self._spacing)
        if over > 1e-9:
            raise Refused(
                429,
                "Too Many Requests",
                f"{key} sends more than {self._per_second:g} requests a second",
                headers={"Retry-After": str(max(1, ceil(over)))},
            )
        if len(self._full_at) >= _KEYS and key not in self._full_at:
            self._forget(now)
        self._full_at[key] = full_at

    def _forget(self, now: float) -> None:
        """Drop the buckets that are full, which is as if they had never been asked."""
        self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        if len(self._full_at) >= _KEYS:
            del self._full_at[next(iter(self._full_at))]
