"""GitHub's rate limits: primary by token and resource, secondary by token.

Sources: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api and
https://docs.github.com/en/graphql/overview/rate-limits-and-query-limits-for-the-graphql-api
"""

import math
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from .errors import GitHubError

_SECONDARY = (
    "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
)


@dataclass
class Bucket:
    """What a token has of a resource in this window."""

    limit: int
    remaining: int
    reset_at: int  # whole seconds, as the header has it

    def headers(self, resource: str) -> dict[str, str]:
        """Of every answer."""
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-used": str(self.limit - self.remaining),
            "x-ratelimit-reset": str(self.reset_at),
            "x-ratelimit-resource": resource,
        }

    def overview(self) -> dict[str, int]:
        """As GET /rate_limit has it."""
        return {
            "limit": self.limit,
            "used": self.limit - self.remaining,
            "remaining": self.remaining,
            "reset": self.reset_at,
        }


@dataclass
class Limits:
    """The limits, and what is left of them."""

    sizes: dict[str, int] = field(
        default_factory=lambda: {"core": 5000, "graphql": 5000, "search": 30}
    )
    window_seconds: float = 3600
    concurrent: int = 100
    points_per_minute: int = 900
    minute_seconds: float = 60
    retry_after_seconds: int = 60
    buckets: dict[tuple[str, str], Bucket] = field(default_factory=dict)
    running: Counter[str] = field(default_factory=Counter)
    points: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)
    start: tuple[int, int] | None = None  # of tokens not seen yet: remaining, reset

    def configure(self, plan: dict[str, Any]) -> None:
        """Take the sizes and times of a plan, with every window new."""
        for resource in self.sizes:
            self.sizes[resource] = plan.get(resource, self.sizes[resource])
        self.window_seconds = plan.get("windowSeconds", self.window_seconds)
        self.concurrent = plan.get("concurrent", self.concurrent)
        self.points_per_minute = plan.get("pointsPerMinute", self.points_per_minute)
        self.minute_seconds = plan.get("minuteSeconds", self.minute_seconds)
        self.retry_after_seconds = plan.get("retryAfterSeconds", self.retry_after_seconds)
        self.buckets.clear()
        self.points.clear()
        self.start = None

    def put(self, remaining: int, when: float, token: str | None = None) -> None:
        """Leave a token, or all, so much of everything until then."""
        reset_at = int(when)
        if token is None:
            self.start = (remaining, reset_at)
        for (owner, _), bucket in self.buckets.items():
            if token in (None, owner):
                bucket.remaining, bucket.reset_at = remaining, reset_at
        if token is not None:
            for resource, size in self.sizes.items():
                self.buckets[token, resource] = Bucket(size, remaining, reset_at)

    def bucket(self, token: str, resource: str) -> Bucket:
        """A token's; a new window begins with the first request after the last one's end."""
        now = time.time()
        size = self.sizes[resource]
        found = self.buckets.get((token, resource))
        if found is None and self.start is not None:
            remaining, reset_at = self.start
            found = self.buckets[token, resource] = Bucket(size, remaining, reset_at)
        if found is None or now >= found.reset_at:
            reset_at = math.ceil(now + self.window_seconds)
            found = self.buckets[token, resource] = Bucket(size, size, reset_at)
        return found

    def check_secondary(self, token: str, points: int) -> None:
        """Refuse what is too many at once, or too many a minute."""
        now = time.monotonic()
        spent = self.points.setdefault(token, deque())
        while spent and spent[0][0] <= now - self.minute_seconds:
            spent.popleft()
        if self.running[token] >= self.concurrent:
            raise self.secondary(self.retry_after_seconds)
        if sum(each for _, each in spent) + points > self.points_per_minute:
            wait = max(1, math.ceil(spent[0][0] + self.minute_seconds - now)) if spent else 1
            raise self.secondary(wait)
        spent.append((now, points))

    def secondary(self, seconds: int) -> GitHubError:
        """The refusal."""
        return GitHubError(403, _SECONDARY, {"retry-after": str(seconds)})
