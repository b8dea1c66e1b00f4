"""Asks GitHub for what a repository is classified by: each figure once, over all attempts."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

from pydantic import BaseModel

from hybridjobs.handlers.github.classification import (
    FOUR_WEEKS,
    MONTH,
    Metrics,
    active_since,
    commits_since,
)
from hybridjobs.handlers.github.client import (
    EmptyRepositoryError,
    ForbiddenError,
    GitHubClient,
    StillCounting,
    TransientError,
)

# Five minutes, and more; there are repositories for which GitHub never ends.
MAX_WAITS = 30

_CREATED = """
query($query: String!) { search(query: $query, type: ISSUE, first: 1) { issueCount } }
"""


class Position(BaseModel):
    """What is measured so far: the checkpoint of a classification.

    Figures are counted back from `began`. One that is there and None is not to be had.
    """

    began: datetime
    repository_id: UUID
    owner: str
    name: str
    found: dict[str, int | None]
    waits: int = 0

    def metrics(self) -> Metrics:
        """What was found."""
        return Metrics(**self.found)


async def measure(
    github: GitHubClient, position: Position, save: Callable[[Position], Awaitable[None]]
) -> None:
    """Find what is missing in `position`; RetryLater when GitHub is counting, or gives no more.

    `save` is given what is found, figure by figure, and how often GitHub made it wait. Both
    statistics are asked for before that, so that GitHub counts for both at once.
    """
    counting: StillCounting | None = None
    for name, count in _COUNTS.items():
        if name in position.found:
            continue
        try:
            position.found[name] = await count(github, position)
        except StillCounting as error:
            counting = error
            if position.waits < MAX_WAITS:
                continue
            position.found[name] = None
        await save(position)
    if counting is not None and position.waits < MAX_WAITS:
        position.waits += 1
        await save(position)
        raise counting


async def _pull_requests(github: GitHubClient, position: Position) -> int:
    since = (position.began - MONTH).replace(microsecond=0)
    full_name = f"{position.owner}/{position.name}"
    query = f"repo:{full_name} is:pr created:>={since.isoformat()}"
    try:
        answer = await github.query(position.owner, position.name, _CREATED, {"query": query})
    except ForbiddenError:
        return await _pull_requests_by_page(github, position, since)
    search = answer.data.get("search")
    found = search.get("issueCount") if isinstance(search, dict) else None
    if not isinstance(found, int):
        raise TransientError(f"GitHub's search for {full_name} has no count")
    return found


async def _pull_requests_by_page(github: GitHubClient, position: Position, since: datetime) -> int:
    """For tokens that may not use GraphQL. What was created since then was changed since then."""
    created = set()
    async for page in github.pull_requests(position.owner, position.name, since=since):
        created |= {
            each["id"] for each in page.items if datetime.fromisoformat(each["created_at"]) >= since
        }
    return len(created)


async def _commits(github: GitHubClient, position: Position) -> int:
    try:
        weeks = await github.commit_activity(position.owner, position.name)
    except EmptyRepositoryError:
        return 0
    return commits_since(weeks, position.began - FOUR_WEEKS)


async def _contributors(github: GitHubClient, position: Position) -> int:
    try:
        contributors = await github.contributor_activity(position.owner, position.name)
    except EmptyRepositoryError:
        return 0
    return active_since(contributors, position.began - FOUR_WEEKS)


_COUNTS = {
    "monthly_prs": _pull_requests,
    "monthly_commits": _commits,
    "active_contributors": _contributors,
}
