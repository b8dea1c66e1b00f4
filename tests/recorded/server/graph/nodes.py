"""What resolvers are given: REST objects as GraphQL types, and the query they belong to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..contents import Contents, Object
from ..github import GitHub
from ..limits import Bucket
from ..people import GHOST_ID

Resolver = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Node:
    """A REST object as a GraphQL type, within a repository."""

    type: str
    value: Object
    contents: Contents


@dataclass
class Asked:
    """One query: whose, of which GitHub, at what cost."""

    github: GitHub
    token: str
    bucket: Bucket
    cost: int = 0
    nodes: int = 0
    _known: dict[tuple[Any, ...], dict[int, Object]] = field(default_factory=dict)

    def by_id(self, kind: str, contents: Contents, number: int) -> dict[int, Object]:
        """The reviews or review_comments of a number: made once, as each leads to others."""
        place = (kind, contents.repository["id"], number)
        if place not in self._known:
            listed = (
                contents.reviews(number) if kind == "reviews" else contents.review_comments(number)
            )
            self._known[place] = {each["id"]: each for each in listed}
        return self._known[place]


def actor(user: Object | None, contents: Contents) -> Node | None:
    """A user, bot or organisation; nobody for an account that is gone."""
    if user is None or user["id"] == GHOST_ID:
        return None
    return Node(user["type"], user, contents)
