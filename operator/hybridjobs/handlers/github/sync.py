"""`capture/repository.sync`: a repository and its pull requests changed within some days."""

from datetime import UTC, datetime, timedelta

from pydantic import BaseModel

from hybridjobs.handlers.github.client import GitHubClient, Object, github_client
from hybridjobs.handlers.github.payloads import RepositorySync
from hybridjobs.handlers.github.rows import page
from hybridjobs.handlers.github.tables import GitHubTables, github_tables
from hybridjobs.sdk import Context, handler

RETRIES = 3
# GitHub's clock and ours may differ by less.
CLOCK_MARGIN = timedelta(minutes=1)


class Position(BaseModel):
    """How far a sync has come: the checkpoint of each page.

    One pass reads pages from the last changed pull request down to `since`. What is changed
    meanwhile moves up, onto pages already read; so another pass follows, down to `began`, until a
    pass is a single page.
    """

    since: datetime
    began: datetime
    page: int = 0  # how many are written of this pass
    cursor: str | None = None  # of the page after them
    passes: int = 0  # that are done
    oldest: datetime | None = None
    pages: int = 0
    pull_requests: int = 0  # of the first pass
    inserted: int = 0


@handler("capture/repository.sync")
async def repository_sync(payload: RepositorySync, context: Context) -> dict[str, object]:
    """Store the repository and every pull request changed within `days`; returns counts."""
    if context.checkpoint is None:
        now = datetime.now(UTC)
        position = Position(since=now - timedelta(days=payload.days), began=now)
    else:
        position = Position.model_validate(context.checkpoint)
    async with (
        github_tables() as tables,
        github_client(tables.connection, retries=RETRIES) as github,
    ):
        repository = await github.repository(payload.owner, payload.repo)
        repository_id = (await tables.write(page(repository))).repository_id
        await tables.captures.set_job_repository(context.job_id, repository_id)
        await tables.repositories.set_sync_status(repository_id, "syncing")
        while not await _pass(github, tables, repository, position, payload.days, context):
            position.since = position.began - CLOCK_MARGIN
            position.began = datetime.now(UTC)
            position.page = 0
            position.cursor = None
            position.passes += 1
        await tables.repositories.set_sync_status(repository_id, "completed")
        await context.progress(payload.days, payload.days, _count(position))
        return {
            "repositoryId": str(repository_id),
            "githubId": repository["id"],
            "fullName": repository["full_name"],
            "pages": position.pages,
            "pullRequests": position.pull_requests,
            "inserted": position.inserted,
        }


async def _pass(
    github: GitHubClient,
    tables: GitHubTables,
    repository: Object,
    position: Position,
    days: int,
    context: Context,
) -> bool:
    """Read and write pages down to `since`; whether that was a single page."""
    owner, name = repository["full_name"].split("/")
    pages = github.pull_requests(owner, name, since=position.since, cursor=position.cursor)
    async for found in pages:
        changed = [each for each in found.items if _time(each["updated_at"]) >= position.since]
        written = await tables.write(page(repository, changed))
        position.inserted += written.pull_requests.inserted
        position.page += 1
        position.cursor = found.next
        position.pages += 1
        if position.passes == 0:
            position.pull_requests += len(changed)
        if changed:
            oldest = _time(changed[-1]["updated_at"])
            position.oldest = min(position.oldest or oldest, oldest)
        await context.save_checkpoint(position)
        await context.progress(_days_done(position, days), days, _count(position))
    return position.page == 1


def _days_done(position: Position, days: int) -> int:
    """Whole days of the window that are done: pages go back in time."""
    if position.oldest is None:
        return 0
    return min(max((position.began - position.oldest).days, 0), days)


def _count(position: Position) -> str:
    return f"{position.pull_requests} pull requests"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
