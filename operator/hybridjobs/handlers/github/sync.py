"""`capture/repository.sync`: a repository and its pull requests changed within some days."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from hybridjobs.handlers.github.capturing import Capture, capturing
from hybridjobs.handlers.github.client import ListPage, Object
from hybridjobs.handlers.github.cooldowns import cools_until
from hybridjobs.handlers.github.fan_out import OF_PULL_REQUESTS, fan_out
from hybridjobs.handlers.github.passes import Passage, read_all
from hybridjobs.handlers.github.payloads import RepositorySync
from hybridjobs.handlers.github.rows import page
from hybridjobs.sdk import Context, RetryLater, handler


@handler("capture/repository.sync")
async def repository_sync(payload: RepositorySync, context: Context) -> dict[str, object]:
    """Store the repository and every pull request changed within `days`; returns counts.

    Too soon after the last sync, the repository alone, and until when it is too soon. Jobs for
    what is due of the pull requests are submitted with each page.
    """
    passage = Passage.of(context, payload.days)
    async with capturing(context, passage.tally) as job:
        repository = await job.open(payload)
        result: dict[str, object] = {
            "repositoryId": str(job.repository_id),
            "githubId": repository["id"],
            "fullName": repository["full_name"],
        }
        if context.checkpoint is None:
            state = await job.tables.repositories.sync_state(job.repository_id)
            until = cools_until(state, payload.reason, datetime.now(UTC))
            if until is not None:
                return await job.complete({**result, "skipped": True, "coolsUntil": str(until)})
        await _sync(job, passage, repository)
        return await job.complete(
            {
                **result,
                "pages": passage.pages,
                "pullRequests": passage.items,
                "inserted": passage.tally.inserted,
                "followUps": passage.follow_ups,
            }
        )


async def _sync(job: Capture, passage: Passage, repository: Object) -> None:
    """Read the pull requests; the repository says how that stands."""
    repositories = job.tables.repositories

    def pages(since: datetime, cursor: str | None) -> AsyncIterator[ListPage]:
        return job.github.pull_requests(job.owner, job.name, since=since, cursor=cursor)

    async def write(changed: list[Object]) -> None:
        async with job.tables.writing(page(repository, changed)) as written:
            passage.tally.add(written)
            numbers = [each["number"] for each in changed]
            await fan_out(job, passage, "pull_request", OF_PULL_REQUESTS, numbers=numbers)
            await job.note_progress()

    await repositories.set_sync_status(job.repository_id, "syncing")
    try:
        await read_all(passage, job.context, pages, write, "pull requests")
        # What was due before, and is older than the days.
        async with job.tables.connection.transaction():
            await repositories.set_sync_status(job.repository_id, "completed")
            await fan_out(job, passage, "pull_request", OF_PULL_REQUESTS, numbers=None)
    except RetryLater:
        raise
    except Exception:
        if not job.tables.connection.broken:
            await repositories.set_sync_status(job.repository_id, "failed")
        raise
