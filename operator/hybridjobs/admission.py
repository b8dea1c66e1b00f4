"""Which of the jobs in line get a place: pure decisions over limits. No I/O."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

Key = tuple[str, str]  # type, concurrency key


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job at or near the head of its line; `concurrency_key` None: its type counts by none."""

    id: UUID
    type: str
    order_key: datetime
    concurrency_key: str | None


def key_of(job: Candidate) -> Key:
    """What limits by key count the job by; those without a key count together."""
    return job.type, job.concurrency_key or ""


@dataclass(frozen=True, slots=True)
class Line:
    """What a type's jobs may still take.

    `places` for all of them together; `places_per_key` and `starts_per_key` for each concurrency
    key, before what runs or has started is taken off; None: no such limit.
    """

    type: str
    places: int
    places_per_key: int | None = None
    starts_per_key: int | None = None

    @property
    def counts_by_key(self) -> bool:
        """Whether any limit is by key."""
        return self.places_per_key is not None or self.starts_per_key is not None


@dataclass(frozen=True, slots=True)
class Admission:
    """`chosen` start now, in this order; jobs of `full` keys step out of the line."""

    chosen: list[UUID] = field(default_factory=list)
    full: set[Key] = field(default_factory=set)


def admit(
    candidates: Iterable[Candidate],
    lines: Mapping[str, Line],
    *,
    places: int,
    live: Mapping[Key, int],
    started: Mapping[Key, int],
) -> Admission:
    """Give out `places` in line order, no type or key more than its own.

    `live` are the open attempts of each key, `started` its starts within the throttle's period.
    """
    admission = Admission()
    taken: Counter[str] = Counter()
    taken_by_key: Counter[Key] = Counter()
    for job in sorted(candidates, key=lambda job: (job.order_key, job.id)):
        line = lines[job.type]
        key = key_of(job)
        if line.counts_by_key and _is_full(line, key, taken_by_key[key], live, started):
            admission.full.add(key)
        elif len(admission.chosen) < places and taken[job.type] < line.places:
            admission.chosen.append(job.id)
            taken[job.type] += 1
            taken_by_key[key] += 1
    return admission


def _is_full(
    line: Line, key: Key, taken: int, live: Mapping[Key, int], started: Mapping[Key, int]
) -> bool:
    running, starts = live.get(key, 0) + taken, started.get(key, 0) + taken
    return (line.places_per_key is not None and running >= line.places_per_key) or (
        line.starts_per_key is not None and starts >= line.starts_per_key
    )
