"""The reviews and comments of a pull request, as far as its lists are paged. No I/O."""

from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel

from hybridjobs.handlers.github.graph import objects
from hybridjobs.handlers.github.rows import Object


class LongThread(BaseModel):
    """A thread with more comments after the cursor `comments`; it is the one after `thread`."""

    thread: str | None
    comments: str


class Rest(BaseModel):
    """What of a pull request is still to be read: the cursors of lists that go on."""

    number: int
    updated_at: datetime  # when it was first read
    reviews: str | None = None
    comments: str | None = None
    threads: str | None = None
    long_threads: list[LongThread] = []

    @property
    def lists_go_on(self) -> bool:
        """Whether a list of it has another page."""
        return any((self.reviews, self.comments, self.threads))

    @property
    def is_done(self) -> bool:
        """Whether all of it was read."""
        return not self.lists_go_on and not self.long_threads


@dataclass(frozen=True, slots=True)
class Discussion:
    """A page of each list, in REST's form."""

    reviews: list[Object]
    comments: list[Object]
    review_comments: list[Object]


def take(found: Object, rest: Rest) -> Discussion:
    """What an answer has of a pull request; `rest` goes on to what follows.

    Lists that were not asked for are left out of `found`.
    """
    reviews, comments, edges = ([], [], [])  # type: tuple[list[Object], list[Object], list[Object]]
    review_comments: list[Object] = []
    before = rest.threads
    if "reviews" in found:
        reviews, rest.reviews = objects.listed(found["reviews"])
    if "comments" in found:
        comments, rest.comments = objects.listed(found["comments"])
    if "reviewThreads" in found:
        edges, rest.threads = objects.listed(found["reviewThreads"])
    for edge in edges:
        if edge.get("node") is not None:
            said, more = objects.listed(edge["node"].get("comments"))
            review_comments += said
            if more is not None:
                rest.long_threads.append(LongThread(thread=before, comments=more))
        before = edge.get("cursor")
    return Discussion(
        [objects.review(each) for each in reviews],
        [objects.comment(each) for each in comments],
        [objects.review_comment(each) for each in review_comments],
    )


def take_thread(found: Object, rest: Rest) -> Discussion:
    """What an answer has of the first of the long threads; it is done where it is gone."""
    thread = rest.long_threads.pop(0)
    nodes = (found.get("reviewThreads") or {}).get("nodes") or []
    said, more = objects.listed(nodes[0].get("comments")) if nodes and nodes[0] else ([], None)
    if more is not None:
        rest.long_threads.insert(0, LongThread(thread=thread.thread, comments=more))
    return Discussion([], [], [objects.review_comment(each) for each in said])
