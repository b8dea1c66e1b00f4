"""How large a repository is, by five figures. No I/O."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from hybridjobs.handlers.github.rows import MalformedAnswerError
from hybridjobs.handlers.github.tables.repositories import Size

MONTH = timedelta(days=30)
FOUR_WEEKS = timedelta(weeks=4)
ENOUGH_VOTES = 2
_DAY_SECONDS = 86_400
_SIZES: Sequence[Size] = ("small", "medium", "large", "xl")

# By figure, from what count on it votes for medium, large and xl.
THRESHOLDS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "stars": (1_000, 10_000, 50_000),
        "forks": (100, 1_000, 5_000),
        "monthlyPRs": (100, 500, 2_000),
        "monthlyCommits": (500, 2_000, 10_000),
        "activeContributors": (10, 50, 200),
    }
)

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a repository is classified by; None: GitHub does not tell.

    `monthly_prs` were created within the last 30 days, `monthly_commits` are those of the last 28
    days, and `active_contributors` who committed in a week that began within these.
    """

    stars: int | None = None
    forks: int | None = None
    monthly_prs: int | None = None
    monthly_commits: int | None = None
    active_contributors: int | None = None

    def document(self) -> dict[str, int | None]:
        """By the names of THRESHOLDS."""
        return {
            "stars": self.stars,
            "forks": self.forks,
            "monthlyPRs": self.monthly_prs,
            "monthlyCommits": self.monthly_commits,
            "activeContributors": self.active_contributors,
        }


def vote(name: str, count: int) -> Size:
    """The size that one figure speaks for."""
    return _SIZES[sum(count >= least for least in THRESHOLDS[name])]


def size_of(metrics: Metrics) -> Size:
    """The size with the most votes, of those with as many the larger; with less than two, small."""
    found = metrics.document().items()
    votes = Counter(vote(name, count) for name, count in found if count is not None)
    chosen = max(_SIZES, key=lambda size: (votes[size], _SIZES.index(size)))
    return chosen if votes[chosen] >= ENOUGH_VOTES else "small"


def commits_since(weeks: Sequence[Object], since: datetime) -> int:
    """Commits on the days that began since then, of GitHub's `stats/commit_activity`."""
    first = since.timestamp()
    try:
        return sum(
            count
            for each in weeks
            for day, count in enumerate(each["days"])
            if each["week"] + day * _DAY_SECONDS >= first
        )
    except (KeyError, TypeError) as error:
        raise MalformedAnswerError(f"GitHub's commit activity has no such form: {error}") from None


def active_since(contributors: Sequence[Object], since: datetime) -> int:
    """Who has commits in a week that began since then, of GitHub's `stats/contributors`."""
    first = since.timestamp()
    try:
        return sum(
            any(week["w"] >= first and week["c"] > 0 for week in each["weeks"])
            for each in contributors
        )
    except (KeyError, TypeError) as error:
        raise MalformedAnswerError(
            f"GitHub's contributor activity has no such form: {error}"
        ) from None
