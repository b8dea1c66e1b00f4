"""`capture/repository.sync.graphql`: a repository and its pull requests changed within days."""

from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import BaseModel

from hybridjobs.handlers.github.client import Object, PageSize, TransientError
from hybridjobs.handlers.github.cooldowns import cools_until
from hybridjobs.handlers.github.follow_ups import follow_ups
from hybridjobs.handlers.github.graph import objects, queries
from hybridjobs.handlers.github.graph.capture import Capture, Tally, capturing
from hybridjobs.handlers.github.graph.details import PARTS
from hybridjobs.handlers.github.passes import CLOCK_MARGIN
from hybridjobs.handlers.github.payloads import GraphSync, RepositorySync
from hybridjobs.handlers.github.rows import page
from hybridjobs.handlers.github.sync import repository_sync
from hybridjobs.sdk import Context, RetryLater, handler

DETAILS = "capture/pr.details.graphql"
PRIORITIES = {"critical": 20, "high": 10, "medium": 0, "low": -10}


class Position(BaseModel):
    """How far the passes have come, as those of `capture/repository.sync`: each page's checkpoint.

    The REST handler's checkpoint has no `way`.
    """

    way: Literal["graphql"] = "graphql"
    since: datetime
    began: datetime
    page: int = 0  # how many are written of this pass
    cursor: str | None = None  # of the page after them
    passes: int = 0  # that are done
    oldest: datetime | None = None
    pages: int = 0
    pull_requests: int = 0  # of the first pass
    follow_ups: int = 0
    size: int = queries.LIST_SIZE
    tally: Tally = Tally()


@handler("capture/repository.sync.graphql")
async def repository_sync_graphql(payload: GraphSync, context: Context) -> dict[str, object]:
    """Store the repository and every pull request changed within `days`; returns counts.

    Too soon after the last sync, nothing but until when. Jobs for what is due of the pull requests
    are submitted with each page. When GraphQL is in trouble for good, `capture/repository.sync`
    goes on in its place, by REST.
    """
    kept = context.checkpoint
    by_rest = kept is not None and "way" not in kept
    now = datetime.now(UTC)
    position = (
        Position(since=now - timedelta(days=payload.days), began=now)
        if kept is None or by_rest
        else Position.model_validate(kept)
    )
    async with capturing(context, payload, position.tally) as capture:
        if kept is None and (until := await _cools_until(capture, payload)) is not None:
            return await capture.complete({"skipped": True, "coolsUntil": until.isoformat()})
        if not by_rest:
            try:
                return await _by_graphql(capture, position, payload)
            except TransientError as error:
                context.log.warning("GraphQL is in trouble, going on by REST", error=str(error))
            times = position.model_dump(mode="json", include={"since", "began"})
            await context.save_checkpoint(times | {"days": payload.days})
        rest = {"owner": capture.owner, "repo": capture.name, "days": payload.days}
        result = await repository_sync(RepositorySync.model_validate(rest), context)
        return await capture.complete({**result, "way": "rest"})


async def _cools_until(capture: Capture, payload: GraphSync) -> datetime | None:
    repositories = capture.tables.repositories
    known = capture.known or await repositories.by_name(f"{capture.owner}/{capture.name}")
    state = None if known is None else await repositories.sync_state(known.id)
    return cools_until(state, payload.reason, datetime.now(UTC))


async def _by_graphql(
    capture: Capture, position: Position, payload: GraphSync
) -> dict[str, object]:
    repositories = capture.tables.repositories
    size = PageSize(position.size)
    try:
        while not await _pass(capture, position, payload, size):
            position.since = position.began - CLOCK_MARGIN
            position.began = datetime.now(UTC)
            position.page, position.cursor = 0, None
            position.passes += 1
    except (RetryLater, TransientError):
        raise
    except Exception:
        if capture.known is not None and not capture.tables.connection.broken:
            await repositories.set_sync_status(capture.known.id, "failed")
        raise
    assert capture.known is not None
    await repositories.set_sync_status(capture.known.id, "completed")
    await capture.context.progress(payload.days, payload.days, _message(position))
    return await capture.complete(
        {
            "repositoryId": str(capture.known.id),
            "githubId": capture.known.github_id,
            "fullName": capture.known.full_name,
            "pages": position.pages,
            "pullRequests": position.pull_requests,
            "inserted": position.tally.inserted,
            "followUps": position.follow_ups,
        }
    )


async def _pass(capture: Capture, position: Position, payload: GraphSync, size: PageSize) -> bool:
    """Read and write pages down to `since`; whether that was a single page."""
    has_more = position.page == 0 or position.cursor is not None
    while has_more:
        variables = {"owner": capture.owner, "name": capture.name, "after": position.cursor}
        answer = await capture.github.query(
            capture.owner, capture.name, queries.PULL_REQUESTS, variables, size=size
        )
        found = capture.repository(answer)
        nodes, cursor = objects.listed(found.get("pullRequests"))
        pulls = [objects.pull_request(each) for each in nodes]
        times = [objects.updated_at(each) for each in pulls]
        changed = [each for each, when in zip(pulls, times, strict=True) if when >= position.since]
        await _write(capture, position, payload, found, changed)
        is_last = bool(times) and times[-1] < position.since
        position.cursor = None if is_last else cursor
        position.page += 1
        position.pages += 1
        position.size = size.value
        if position.passes == 0:
            position.pull_requests += len(changed)
        if changed:
            oldest = times[len(changed) - 1]
            position.oldest = min(position.oldest or oldest, oldest)
        await capture.context.save_checkpoint(position)
        done = (position.began - position.oldest).days if position.oldest else 0
        days = min(max(done, 0), payload.days)
        await capture.context.progress(days, payload.days, _message(position))
        has_more = position.cursor is not None
    return position.page == 1


async def _write(
    capture: Capture,
    position: Position,
    payload: GraphSync,
    found: Object,
    changed: list[Object],
) -> None:
    """Write a page, with the jobs for what is due of it."""
    tables, context = capture.tables, capture.context
    if not capture.is_queued:
        # The repository first: jobs may be submitted only where the queue knows this one.
        stored = await tables.write(page(objects.repository(found)))
        await capture.is_about(stored.repository_id, found)
        await tables.repositories.set_sync_status(
            stored.repository_id,
            "syncing",
            total_pull_requests=found["pullRequests"].get("totalCount"),
        )
    async with tables.writing(page(objects.repository(found), changed)) as written:
        position.tally.add(written)
        if capture.is_queued and changed:
            due = await tables.captures.due(
                "pull_request",
                written.repository_id,
                PARTS,
                numbers=[each["number"] for each in changed],
            )
            jobs = follow_ups(
                due,
                {DETAILS: PARTS},
                # The name is what limits count by, as a delivery has it.
                repository={
                    "repositoryId": str(written.repository_id),
                    "owner": capture.owner,
                    "repo": capture.name,
                },
                parent=context.job_id,
                now=datetime.now(UTC),
                priority=PRIORITIES[payload.priority],
            )
            submitted = await tables.captures.submit(
                "pull_request", context.job_id, written.repository_id, jobs
            )
            position.follow_ups += len(submitted)
        await tables.sync_logs.progress(capture.log_id, position.tally.counts)


def _message(position: Position) -> str:
    return f"{position.pull_requests} pull requests"
