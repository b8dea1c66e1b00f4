"""Reading a list that changes while it is read, the last changed first.

One pass reads pages from the last changed item down to `since`. What is changed meanwhile moves up,
onto pages already read; so another pass follows, down to `began`, until a pass is a single page.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Self

from pydantic import BaseModel

from hybridjobs.handlers.github.capturing import Tally
from hybridjobs.handlers.github.client import ListPage, Object
from hybridjobs.handlers.github.rows import MalformedAnswerError
from hybridjobs.sdk import Context

# GitHub's clock and ours may differ by less.
CLOCK_MARGIN = timedelta(minutes=1)

# Where pages come from: those from a time and a cursor on, the last one of them included.
Pages = Callable[[datetime, str | None], AsyncIterator[ListPage]]


class Passage(BaseModel):
    """How far the passes have come: the checkpoint of each page."""

    since: datetime
    began: datetime
    days: int
    page: int = 0  # how many are written of this pass
    cursor: str | None = None  # of the page after them
    passes: int = 0  # that are done
    oldest: datetime | None = None
    pages: int = 0
    items: int = 0  # of the first pass
    follow_ups: int = 0
    tally: Tally = Tally()

    @classmethod
    def of(cls, context: Context, days: int) -> Self:
        """Where an earlier attempt stopped, or the beginning."""
        if context.checkpoint is not None:
            return cls.model_validate(context.checkpoint)
        now = datetime.now(UTC)
        return cls(since=now - timedelta(days=days), began=now, days=days)

    @property
    def days_done(self) -> int:
        """Whole days of the window that are done: pages go back in time."""
        if self.oldest is None:
            return 0
        return min(max((self.began - self.oldest).days, 0), self.days)

    def begin_pass(self) -> None:
        """From the first page on, by the same times."""
        self.page, self.cursor = 0, None
        if self.passes == 0:
            self.items = 0


async def read_all(
    passage: Passage,
    context: Context,
    pages: Pages,
    write: Callable[[list[Object]], Awaitable[None]],
    what: str,
) -> None:
    """Write every page that `pages` has, until nothing moves.

    A checkpoint and the progress, in days, follow each page; `what` is what people call the items.
    """
    while not await _pass(passage, context, pages, write, what):
        passage.since = passage.began - CLOCK_MARGIN
        passage.began = datetime.now(UTC)
        passage.passes += 1
        passage.begin_pass()
    await context.progress(passage.days, passage.days, f"{passage.items} {what}")


async def _pass(
    passage: Passage,
    context: Context,
    pages: Pages,
    write: Callable[[list[Object]], Awaitable[None]],
    what: str,
) -> bool:
    """Read and write pages down to `since`; whether that was a single page."""
    if passage.page > 0 and passage.cursor is None:  # killed when it had read the last one
        return passage.page == 1
    async for found in pages(passage.since, passage.cursor):
        changed = [each for each in found.items if updated_at(each) >= passage.since]
        await write(changed)
        passage.page += 1
        passage.cursor = None if is_last(found.items, passage.since) else found.next
        passage.pages += 1
        if passage.passes == 0:
            passage.items += len(changed)
        if changed:
            oldest = updated_at(changed[-1])
            passage.oldest = min(passage.oldest or oldest, oldest)
        await context.save_checkpoint(passage)
        await context.progress(passage.days_done, passage.days, f"{passage.items} {what}")
    return passage.page == 1


def is_last(items: Sequence[Object], since: datetime) -> bool:
    """Whether what follows the items was changed before `since`."""
    return bool(items) and updated_at(items[-1]) < since


def updated_at(item: Object) -> datetime:
    """When an object, in REST's form, was changed last."""
    try:
        return datetime.fromisoformat(item["updated_at"])
    except (KeyError, TypeError, ValueError):
        raise MalformedAnswerError("GitHub's answer has an item without updated_at") from None
