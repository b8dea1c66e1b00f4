"""`capture/repository.sync`: a repository and its pull requests changed within some days."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from hybridjobs.handlers.github.capturing import Capture, capturing
from hybridjobs.handlers.github.client import ListPage, Object
from hybridjobs.handlers.github.cooldowns import cools_until
from hybridjobs.handlers.github.fan_out import OF_PULL_REQUESTS, Types, fan_out
from hybridjobs.handlers.github.passes import Pages, Passage, read_all
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
        await job.open(payload)
        if (skipped := await too_soon(job, payload.reason)) is not None:
            return skipped
        return await job.complete(await sync_by_rest(job, passage))


async def too_soon(job: Capture, reason: str | None) -> dict[str, object] | None:
    """The result of a sync that may not begin yet; None: it goes on."""
    if job.context.checkpoint is not None or (known := await job.known()) is None:
        return None
    state = await job.tables.repositories.sync_state(known.id)
    until = cools_until(state, reason, datetime.now(UTC))
    if until is None:
        return None
    await job.is_about(known.id, known.github_id, known.full_name)
    return await job.complete({**job.names(), "skipped": True, "coolsUntil": until.isoformat()})


async def sync_by_rest(job: Capture, passage: Passage, priority: int = 0) -> dict[str, object]:
    """Sync the repository that was opened, with the rest of the passes; the result."""

    def pages(since: datetime, cursor: str | None) -> AsyncIterator[ListPage]:
        return job.github.pull_requests(job.owner, job.name, since=since, cursor=cursor)

    return await sync(job, passage, pages, OF_PULL_REQUESTS, priority)


async def sync(
    job: Capture, passage: Passage, pages: Pages, types: Types, priority: int
) -> dict[str, object]:
    """Write the pages and submit jobs; the repository says how that stands. The result.

    When `pages` gives one, `job` must know the repository.
    """
    repositories = job.tables.repositories

    async def write(changed: list[Object]) -> None:
        numbers = [each["number"] for each in changed]
        async with job.tables.writing(page(job.repository, changed)) as written:
            job.tally.add(written)
            await fan_out(job, passage, "pull_request", types, numbers=numbers, priority=priority)
            await job.note_progress()

    try:
        if passage.tally.repository_id is not None:
            await repositories.set_sync_status(job.repository_id, "syncing")
        await read_all(passage, job.context, pages, write, "pull requests")
        # What was due before, and is older than the days.
        async with job.tables.connection.transaction():
            await repositories.set_sync_status(job.repository_id, "completed")
            await fan_out(job, passage, "pull_request", types, numbers=None, priority=priority)
    except RetryLater:
        raise
    except Exception:
        if passage.tally.repository_id is not None and not job.tables.connection.broken:
            await repositories.set_sync_status(job.repository_id, "failed")
        raise
    return {
        **job.names(),
        "pages": passage.pages,
        "pullRequests": passage.items,
        "inserted": passage.tally.inserted,
        "followUps": passage.follow_ups,
    }
