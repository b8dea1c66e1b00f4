"""`capture/repository.sync.graphql`: a repository and its pull requests changed within days."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Literal

from hybridjobs.handlers.github.capturing import Capture, capturing
from hybridjobs.handlers.github.client import (
    ListPage,
    NamelessError,
    Object,
    PageSize,
    TransientError,
)
from hybridjobs.handlers.github.fan_out import BY_GRAPHQL
from hybridjobs.handlers.github.graph import objects, queries
from hybridjobs.handlers.github.passes import Pages, Passage, is_last
from hybridjobs.handlers.github.payloads import GraphSync
from hybridjobs.handlers.github.sync import sync, sync_by_rest, too_soon
from hybridjobs.sdk import Context, handler

PRIORITIES = {"critical": 20, "high": 10, "medium": 0, "low": -10}


class Position(Passage):
    """How far the passes have come, and by what; `size`: of a page."""

    way: Literal["graphql", "rest"] = "graphql"
    size: int = queries.LIST_SIZE


@handler("capture/repository.sync.graphql")
async def repository_sync_graphql(payload: GraphSync, context: Context) -> dict[str, object]:
    """Store the repository and every pull request changed within `days`; returns counts.

    Too soon after the last sync, nothing but until when. Jobs for what is due of the pull requests
    are submitted with each page. When GraphQL is in trouble for good, or answers nobody without a
    token, it goes on by REST.
    """
    position = Position.of(context, payload.days)
    priority = PRIORITIES[payload.priority]
    async with capturing(context, position.tally) as job:
        await job.choose(payload)
        if (skipped := await too_soon(job, payload.reason)) is not None:
            return skipped
        if position.way == "graphql":
            try:
                done = await sync(job, position, _pages(job, position), BY_GRAPHQL, priority)
                return await job.complete({**done, "way": "graphql"})
            except (TransientError, NamelessError) as error:
                context.log.warning("GraphQL does not answer, going on by REST", error=str(error))
            position.way = "rest"
            position.begin_pass()
            await context.save_checkpoint(position)
        await job.open(payload)
        done = await sync_by_rest(job, position, priority)
        return await job.complete({**done, "way": "rest"})


def _pages(job: Capture, position: Position) -> Pages:
    size = PageSize(position.size)

    async def pages(since: datetime, cursor: str | None) -> AsyncIterator[ListPage]:
        while True:
            found = await _page(job, cursor, size)
            position.size = size.value
            job.repository = objects.repository(found)
            if position.page == 0:
                # Before the page: jobs may be submitted only where the queue knows this one.
                await job.store(job.repository)
                total = found["pullRequests"].get("totalCount")
                await job.tables.repositories.set_sync_status(
                    job.repository_id, "syncing", total_pull_requests=total
                )
            nodes, cursor = objects.listed(found.get("pullRequests"))
            pulls = [objects.pull_request(each) for each in nodes]
            yield ListPage(pulls, cursor, unchanged=False)
            if cursor is None or is_last(pulls, since):
                return

    return pages


async def _page(job: Capture, cursor: str | None, size: PageSize) -> Object:
    """The repository with the page at the cursor."""

    def made(value: int) -> tuple[str, Mapping[str, object]]:
        return queries.PULL_REQUESTS, {"first": value, "after": cursor}

    return await job.query(made, size)
