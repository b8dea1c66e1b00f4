"""Asks GitHub for what a repository is classified by: each figure once, over all attempts."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from pydantic import BaseModel

from hybridjobs.handlers.github.capturing import Capture, Tally
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
    found: dict[str, int | None]
    waits: int = 0
    tally: Tally = Tally()

    def metrics(self) -> Metrics:
        """What was found."""
        return Metrics(**self.found)


async def measure(job: Capture, position: Position, save: Callable[[], Awaitable[None]]) -> None:
    """Find what is missing in `position`; RetryLater when GitHub is counting, or gives no more.

    `save` keeps what is found, figure by figure. Both statistics are asked for before GitHub makes
    the job wait, so that it counts for both at once.
    """
    counting: StillCounting | None = None
    for name, count in _COUNTS.items():
        if name in position.found:
            continue
        try:
            position.found[name] = await count(job, position.began)
        except StillCounting as error:
            counting = error
            if position.waits < MAX_WAITS:
                continue
            position.found[name] = None
        await save()
    if counting is not None and position.waits < MAX_WAITS:
        position.waits += 1
        raise counting


async def _pull_requests(job: Capture, began: datetime) -> int:
    since = (began - MONTH).replace(microsecond=0)
    query = f"repo:{job.full_name} is:pr created:>={since.isoformat()}"
    try:
        answer = await job.github.query(job.owner, job.name, _CREATED, {"query": query})
    except ForbiddenError:
        return await _pull_requests_by_page(job, since)
    search = answer.data.get("search")
    found = search.get("issueCount") if isinstance(search, dict) else None
    if not isinstance(found, int):
        raise TransientError(f"GitHub's search for {job.full_name} has no count")
    return found


async def _pull_requests_by_page(job: Capture, since: datetime) -> int:
    """For tokens that may not use GraphQL. What was created since then was changed since then."""
    created = set()
    async for page in job.github.pull_requests(job.owner, job.name, since=since):
        created |= {
            each["id"] for each in page.items if datetime.fromisoformat(each["created_at"]) >= since
        }
    return len(created)


async def _commits(job: Capture, began: datetime) -> int:
    try:
        weeks = await job.github.commit_activity(job.owner, job.name)
    except EmptyRepositoryError:
        return 0
    return commits_since(weeks, began - FOUR_WEEKS)


async def _contributors(job: Capture, began: datetime) -> int:
    try:
        contributors = await job.github.contributor_activity(job.owner, job.name)
    except EmptyRepositoryError:
        return 0
    return active_since(contributors, began - FOUR_WEEKS)


_COUNTS = {
    "monthly_prs": _pull_requests,
    "monthly_commits": _commits,
    "active_contributors": _contributors,
}
