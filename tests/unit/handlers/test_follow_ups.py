from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hybridjobs.handlers.github.follow_ups import Due, FollowUp, Part, follow_ups
from hybridjobs.ids import new_id

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PARENT = new_id()
REPOSITORY = {"repositoryId": "r", "owner": "a", "repo": "b"}
EACH: dict[str, Sequence[Part]] = {
    "capture/pr.details": ["details"],
    "capture/pr.reviews": ["reviews"],
}


def due(number: int, *, days: int = 30, is_open: bool = False, parts: str = "details") -> Due:
    updated_at = NOW - timedelta(days=days)
    found: tuple[Part, ...] = ("details", "reviews") if parts == "both" else ("details",)
    return Due(UUID(int=number), number, updated_at, is_open, found)


def planned(
    dues: list[Due], types: dict[str, Sequence[Part]] = EACH, **options: int
) -> list[FollowUp]:
    return follow_ups(dues, types, repository=REPOSITORY, parent=PARENT, now=NOW, **options)


def test_a_job_takes_a_hundred_and_each_once() -> None:
    jobs = planned([due(number) for number in range(250)])
    assert [len(job.due) for job in jobs] == [100, 100, 50]
    numbers = [number for job in jobs for number in job.payload["numbers"]]  # type: ignore[attr-defined]
    assert sorted(numbers) == list(range(250))
    assert jobs[0].payload.items() >= REPOSITORY.items()


def test_each_type_takes_what_is_due_in_its_parts() -> None:
    jobs = planned([due(1, parts="both"), due(2)])
    assert [(job.type, job.payload["numbers"]) for job in jobs] == [
        ("capture/pr.details", [1, 2]),
        ("capture/pr.reviews", [1]),
    ]
    (all_in_one,) = planned([due(1, parts="both"), due(2)], {"all": ["details", "reviews"]})
    assert all_in_one.payload["numbers"] == [1, 2]


def test_open_and_recent_ones_come_first_and_before_the_rest() -> None:
    dues = [due(number, days=8 + number) for number in range(100)]
    dues += [due(200, days=6), due(201, days=400, is_open=True)]
    first, second = planned(dues, priority=5)
    assert {200, 201, 0, 97} <= set(first.payload["numbers"])  # type: ignore[call-overload]
    assert second.payload["numbers"] == [98, 99]
    assert (first.priority, second.priority) == (5, -5)
    assert planned([due(1)], priority=-95)[0].priority == -100


def test_jobs_are_bounded() -> None:
    jobs = planned([due(number) for number in range(1000)], at_most=3)
    assert sum(len(job.due) for job in jobs) == 300


def test_a_key_is_the_parents_and_of_what_is_asked_for() -> None:
    keys = {
        planned([due(1)])[0].key,
        planned([due(1)])[0].key,
        planned([due(1, days=29)])[0].key,
        planned([due(1), due(2)])[0].key,
        planned([due(2), due(1)])[0].key,
    }
    assert len(keys) == 3
    assert all(key.startswith(f"{PARENT}/") for key in keys)


def test_nothing_due_is_no_job() -> None:
    assert planned([]) == []
