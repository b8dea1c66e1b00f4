"""Captures over the pull requests or issues of a repository, number by number.

The checkpoint is saved after each page, so a later attempt asks for no page twice. A number that
GitHub has no more is passed over with a note; a repository that it has no more is an error.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel

from hybridjobs.handlers.github.capturing import Capture, Tally, capturing
from hybridjobs.handlers.github.client import (
    GoneError,
    LegalError,
    ListPage,
    NotFoundError,
    Object,
)
from hybridjobs.handlers.github.follow_ups import Part, Subject
from hybridjobs.handlers.github.passes import updated_at
from hybridjobs.handlers.github.payloads import Numbers
from hybridjobs.handlers.github.rows import Page, base_repository, page
from hybridjobs.sdk import Context


@dataclass(frozen=True, slots=True)
class Listed:
    """A list that pull requests or issues have.

    `pages`: by client, owner, name, number and `cursor`. `rows`: of GitHub's repository id and the
    objects by number.
    """

    pages: Callable[..., AsyncIterator[ListPage]]
    rows: Callable[[int, Mapping[int, list[Object]]], Page]


class Position(BaseModel):
    """How far a job over numbers has come: its checkpoint."""

    done: int = 0  # numbers, in the payload's order
    lists: int = 0  # of the next number that are done
    cursor: str | None = None  # of the next page of the list after them
    updated_at: datetime | None = None  # of the next number, before its lists were asked for
    notes: dict[int, str] = {}
    tally: Tally = Tally()


class NotCapturedError(Exception):
    """This number is none for the job; what it says becomes the note."""


async def over_numbers(
    job: Capture,
    position: Position,
    numbers: list[int],
    capture: Callable[[int], Awaitable[None]],
    *,
    must_exist: bool = False,
) -> None:
    """Capture the numbers after `position`, with checkpoint and progress after each.

    With `must_exist`, one that GitHub does not have is an error.
    """
    total = len(numbers)
    for number in numbers[position.done :]:
        try:
            await capture(number)
        except (NotFoundError, GoneError, LegalError) as error:
            # It raises where the whole repository is gone.
            await job.store(await job.ask())
            if must_exist or isinstance(error, LegalError):
                raise
            position.notes[number] = str(error)
            position.tally.failed += 1
        except NotCapturedError as error:
            position.notes[number] = str(error)
            position.tally.failed += 1
        position.done += 1
        position.lists, position.cursor, position.updated_at = 0, None, None
        await job.note_progress()
        await job.context.save_checkpoint(position)
        await job.context.progress(position.done, total, f"{position.done} of {total}")


async def capture_lists(
    payload: Numbers,
    context: Context,
    subject: Subject,
    part: Part,
    lists: Sequence[Listed],
) -> dict[str, object]:
    """Bring in the lists of each number; returns counts and notes.

    A pull request or issue that is not stored is brought in first.
    """
    position = Position.model_validate(context.checkpoint or {})
    async with capturing(context, position.tally) as job:
        await job.open(payload)
        known = await job.tables.captures.updated_at(subject, job.repository_id, payload.numbers)
        store = _store_pull_request if subject == "pull_request" else _store_issue

        async def capture(number: int) -> None:
            if position.updated_at is None:
                position.updated_at = known.get(number) or await store(job, number)
            try:
                await _capture(job, position, number, lists)
            except (NotFoundError, GoneError):
                await set_captured(job, subject, part, number, position.updated_at)
                raise
            await set_captured(job, subject, part, number, position.updated_at)

        await over_numbers(job, position, payload.numbers, capture)
        return await job.complete(outcome(job, position))


async def _capture(job: Capture, position: Position, number: int, lists: Sequence[Listed]) -> None:
    """Write the pages of the lists from the position on."""
    for each in lists[position.lists :]:
        pages = each.pages(job.github, job.owner, job.name, number, cursor=position.cursor)
        async for found in pages:
            rows = each.rows(job.repository["id"], {number: found.items})
            async with job.tables.writing(rows) as written:
                position.tally.add(written)
                await job.note_progress()
            position.cursor = found.next
            if found.next is not None:
                await job.context.save_checkpoint(position)
        position.lists += 1
        if position.lists < len(lists):
            await job.context.save_checkpoint(position)


async def set_captured(
    job: Capture, subject: Subject, part: Part, number: int, updated_at: datetime
) -> None:
    """The part is captured of the number as it was at that time, or is there no more."""
    await job.tables.captures.set_captured(subject, job.repository_id, [part], {number: updated_at})


def outcome(job: Capture, position: Position) -> dict[str, object]:
    """The result of a job over numbers."""
    return {
        "repositoryId": str(job.repository_id),
        "numbers": position.done,
        "rows": position.tally.processed,
        "inserted": position.tally.inserted,
        "updated": position.tally.updated,
        "notes": {str(number): note for number, note in position.notes.items()},
    }


async def _store_pull_request(job: Capture, number: int) -> datetime:
    """Bring in a pull request that is not stored; GitHub's time of it."""
    found = await job.github.pull_request(job.owner, job.name, number)
    await job.store(base_repository(found), found)
    await set_captured(job, "pull_request", "details", number, updated_at(found))
    return updated_at(found)


async def _store_issue(job: Capture, number: int) -> datetime:
    """Bring in an issue that is not stored; GitHub's time of it."""
    found = await job.github.issue(job.owner, job.name, number)
    if found.get("pull_request"):
        raise NotCapturedError(f"{number} is a pull request: capture/pr.comments is for those")
    job.tally.add(await job.tables.write(page(job.repository["id"], issues=[found])))
    return updated_at(found)
