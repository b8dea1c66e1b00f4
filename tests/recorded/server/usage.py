"""What was asked of GitHub, by whom, and what it came to."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Usage:
    """Counts since the last reset."""

    endpoints: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)  # by resource, as quotas count
    exceeded: Counter[str] = field(default_factory=Counter)  # by token: more than was left
    secondary: int = 0
    troubles: Counter[str] = field(default_factory=Counter)  # 502, slow, malformed, abandoned

    def document(self) -> dict[str, Any]:
        """As GET /_test/usage has it."""
        return {
            "requests": self.statuses.total(),
            "endpoints": dict(self.endpoints),
            "tokens": dict(self.tokens),
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "points": dict(self.points),
            "quotaExceeded": self.exceeded.total(),
            "quotaExceededByToken": dict(self.exceeded),
            "secondary": self.secondary,
            "troubles": dict(self.troubles),
        }
