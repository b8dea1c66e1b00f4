"""Which jobs bring in what a page left open. No I/O."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

Part = Literal["details", "reviews", "comments"]
Subject = Literal["pull_request", "issue"]

NUMBERS_A_JOB = 100
RECENT = timedelta(days=7)
# What neither is open nor changed lately waits for the rest.
PRIORITY_STEP = 10
LOWEST_PRIORITY = -100


@dataclass(frozen=True, slots=True)
class Due:
    """A pull request or issue of which parts are not captured as it is since `updated_at`."""

    id: UUID
    number: int
    updated_at: datetime
    is_open: bool
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A job to submit: the same key under the same parent is the same job."""

    type: str
    payload: Mapping[str, object]
    key: str
    priority: int
    due: tuple[Due, ...] = field(repr=False)
    parts: tuple[Part, ...]


def follow_ups(
    due: Iterable[Due],
    types: Mapping[str, Sequence[Part]],
    *,
    repository: Mapping[str, object],
    parent: UUID,
    now: datetime,
    priority: int = 0,
    at_most: int = 100,
) -> list[FollowUp]:
    """Jobs of each type for what is due in any of its parts, the most wanted first.

    `types` maps a job type to the parts that it captures. A job takes up to 100 numbers, its
    payload is `repository` and `numbers`; a type gets `at_most` jobs, and what is beyond them stays
    due. Open ones and those changed within a week come first; jobs without any such one have a
    lower priority. Keys are made of `parent` and what is asked for.
    """
    wanted = sorted(due, key=lambda each: each.updated_at, reverse=True)
    wanted.sort(key=lambda each: not _is_hot(each, now))
    jobs = []
    for type_, parts in types.items():
        theirs = [each for each in wanted if set(parts) & set(each.parts)]
        for start in range(0, min(len(theirs), at_most * NUMBERS_A_JOB), NUMBERS_A_JOB):
            chunk = tuple(theirs[start : start + NUMBERS_A_JOB])
            place = priority if _is_hot(chunk[0], now) else priority - PRIORITY_STEP
            jobs.append(
                FollowUp(
                    type=type_,
                    payload={**repository, "numbers": sorted(each.number for each in chunk)},
                    key=f"{parent}/{_digest(chunk)}",
                    priority=max(place, LOWEST_PRIORITY),
                    due=chunk,
                    parts=tuple(parts),
                )
            )
    return jobs


def _is_hot(due: Due, now: datetime) -> bool:
    return due.is_open or due.updated_at > now - RECENT


def _digest(chunk: Iterable[Due]) -> str:
    asked = sorted((str(each.id), each.updated_at.isoformat()) for each in chunk)
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:32]
