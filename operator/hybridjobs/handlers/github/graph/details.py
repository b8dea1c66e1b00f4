"""`capture/pr.details.graphql`: up to 100 pull requests with all that belongs to them."""

from collections.abc import Mapping
from typing import get_args

from pydantic import BaseModel

from hybridjobs.handlers.github.client import Object, PageSize
from hybridjobs.handlers.github.follow_ups import Part
from hybridjobs.handlers.github.graph import objects, queries
from hybridjobs.handlers.github.graph.capture import Capture, Tally, capturing
from hybridjobs.handlers.github.graph.discussions import Discussion, Rest, take, take_thread
from hybridjobs.handlers.github.payloads import MAX_NUMBERS, Numbers
from hybridjobs.handlers.github.rows import page
from hybridjobs.sdk import Context, PermanentError, handler

PARTS: tuple[Part, ...] = get_args(Part)


class Position(BaseModel):
    """How far a job has come: the checkpoint of each answer.

    Pull requests are asked for in the order of their numbers, many at once; what of these goes on
    is read before the next ones.
    """

    asked: int = 0  # of the numbers
    rest: list[Rest] = []
    size: int = MAX_NUMBERS
    missing: list[int] = []
    tally: Tally = Tally()


@handler("capture/pr.details.graphql")
async def pull_requests_graphql(payload: Numbers, context: Context) -> dict[str, object]:
    """Store pull requests with their reviews and comments; returns counts and who is missing."""
    position = Position.model_validate(context.checkpoint or {})
    async with capturing(context, payload, position.tally) as capture:
        size = PageSize(position.size, maximum=MAX_NUMBERS)
        total = len(payload.numbers)
        while position.asked < total or position.rest:
            if position.rest:
                await _go_on(capture, position)
            else:
                await _ask(capture, position, payload.numbers[position.asked :], size)
            position.size = size.value
            await context.save_checkpoint(position)
            await context.progress(position.asked - len(position.rest), total, "pull requests")
        if len(position.missing) == total:
            raise PermanentError(
                f"{capture.owner}/{capture.name} has no pull request "
                + ", ".join(map(str, position.missing))
            )
        return await capture.complete(
            {
                "repositoryId": str(capture.known and capture.known.id),
                "pullRequests": total - len(position.missing),
                "missing": position.missing,
                "inserted": position.tally.inserted,
                "updated": position.tally.updated,
            }
        )


async def _ask(capture: Capture, position: Position, numbers: list[int], size: PageSize) -> None:
    """Read and write as many of the numbers as GitHub gives at once."""
    asked: list[int] = []

    def made(value: int) -> tuple[str, Mapping[str, object], int]:
        asked[:] = numbers[:value]
        variables = {f"n{place}": number for place, number in enumerate(asked)}
        names = {"owner": capture.owner, "name": capture.name}
        points = queries.details_points(len(asked))
        return queries.details(len(asked)), names | variables, points

    answer = await capture.github.query_sized(capture.owner, capture.name, made, size)
    found = capture.repository(answer)
    pulls: list[Object] = []
    discussions: dict[int, Discussion] = {}
    rests: list[Rest] = []
    for place, number in enumerate(asked):
        node = found.get(f"p{place}")
        if node is None:
            position.missing.append(number)
            continue
        pull = objects.pull_request(node)
        rest = Rest(number=number, updated_at=objects.updated_at(pull))
        pulls.append(pull)
        discussions[number] = take(node, rest)
        rests.append(rest)
    rows = page(
        objects.repository(found),
        pulls,
        reviews={number: each.reviews for number, each in discussions.items()},
        issue_comments={number: each.comments for number, each in discussions.items()},
        review_comments={number: each.review_comments for number, each in discussions.items()},
    )
    async with capture.tables.writing(rows) as written:
        position.tally.add(written)
        await capture.tables.captures.set_captured(
            "pull_request",
            written.repository_id,
            PARTS,
            {each.number: each.updated_at for each in rests if each.is_done},
        )
        await capture.tables.sync_logs.progress(capture.log_id, position.tally.counts)
    await capture.is_about(written.repository_id, found)
    position.asked += len(asked)
    position.rest = [each for each in rests if not each.is_done]


async def _go_on(capture: Capture, position: Position) -> None:
    """Read and write what follows of the first pull request that goes on."""
    rest = position.rest[0]
    variables: dict[str, object] = {
        "owner": capture.owner,
        "name": capture.name,
        "number": rest.number,
    }
    if rest.lists_go_on:
        document = queries.MORE
        for name in ("reviews", "comments", "threads"):
            variables[name] = getattr(rest, name)
            variables[f"more{name.capitalize()}"] = variables[name] is not None
    else:
        document = queries.THREAD
        thread = rest.long_threads[0]
        variables |= {"thread": thread.thread, "after": thread.comments}
    answer = await capture.github.query(
        capture.owner, capture.name, document, variables, size=PageSize(queries.LIST_SIZE)
    )
    found = capture.repository(answer)
    node = found.get("pullRequest")
    if node is None:  # transferred or deleted with its repository's move
        position.rest.pop(0)
        position.missing.append(rest.number)
        return
    said = take(node, rest) if rest.lists_go_on else take_thread(node, rest)
    rows = page(
        found["databaseId"],
        reviews={rest.number: said.reviews},
        issue_comments={rest.number: said.comments},
        review_comments={rest.number: said.review_comments},
    )
    async with capture.tables.writing(rows) as written:
        position.tally.add(written)
        if rest.is_done:
            await capture.tables.captures.set_captured(
                "pull_request", written.repository_id, PARTS, {rest.number: rest.updated_at}
            )
            position.rest.pop(0)
        await capture.tables.sync_logs.progress(capture.log_id, position.tally.counts)
