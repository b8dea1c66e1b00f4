from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs.admission import Candidate, Key, Line, admit, key_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _line_of(jobs: str, type_: str = "t", *, first_id: int = 1) -> list[Candidate]:
    """A job for each letter, which is its key ('-': none), in line order, one a second."""
    return [
        Candidate(
            UUID(int=first_id - 1 + place),
            type_,
            NOW + timedelta(seconds=place),
            None if k == "-" else k,
        )
        for place, k in enumerate(jobs, start=1)
    ]


@pytest.mark.parametrize(
    ("jobs", "line", "places", "live", "started", "chosen", "full"),
    [
        ("", Line("t", 5), 5, {}, {}, [], ""),
        ("---", Line("t", 5), 5, {}, {}, [1, 2, 3], ""),
        ("---", Line("t", 2), 5, {}, {}, [1, 2], ""),
        ("---", Line("t", 5), 1, {}, {}, [1], ""),
        # No limit by key: keys mean nothing.
        ("aaa", Line("t", 5), 5, {"a": 9}, {"a": 9}, [1, 2, 3], ""),
        ("aab", Line("t", 5, places_per_key=1), 5, {}, {}, [1, 3], "a"),
        ("aab", Line("t", 5, places_per_key=2), 5, {"a": 1}, {}, [1, 3], "a"),
        ("aab", Line("t", 5, places_per_key=1), 5, {"a": 1, "b": 1}, {}, [], "ab"),
        # What is over its limit, lowered meanwhile, is full as well.
        ("ab", Line("t", 5, places_per_key=1), 5, {"a": 7}, {}, [2], "a"),
        ("aab", Line("t", 5, starts_per_key=1), 5, {}, {"b": 1}, [1], "ab"),
        ("aaab", Line("t", 5, places_per_key=2, starts_per_key=3), 5, {}, {"a": 2}, [1, 4], "a"),
        # Those without a key share one.
        ("-a-", Line("t", 5, places_per_key=1), 5, {}, {}, [1, 2], "-"),
        # A key is full only by what runs, not by places that are not to be had.
        ("ab", Line("t", 5, places_per_key=1), 1, {}, {}, [1], ""),
    ],
)
def test_who_gets_a_place(
    jobs: str,
    line: Line,
    places: int,
    live: dict[str, int],
    started: dict[str, int],
    chosen: list[int],
    full: str,
) -> None:
    admission = admit(
        _line_of(jobs),
        {"t": line},
        places=places,
        live={("t", key): count for key, count in live.items()},
        started={("t", key): count for key, count in started.items()},
    )
    assert [job.int for job in admission.chosen] == chosen
    assert admission.full == {("t", key.replace("-", "")) for key in full}


def test_types_share_the_places_in_line_order() -> None:
    one, other = _line_of("---", "one"), _line_of("---", "other", first_id=11)
    lines = {"one": Line("one", 2), "other": Line("other", 2)}
    admission = admit([*other, *one], lines, places=3, live={}, started={})
    assert [job.int for job in admission.chosen] == [1, 11, 2]


_jobs = st.builds(
    Candidate,
    id=st.uuids(),
    type=st.sampled_from(["t", "u"]),
    order_key=st.datetimes(timezones=st.just(UTC)),
    concurrency_key=st.sampled_from([None, "a", "b"]),
)
_counts = st.dictionaries(
    st.tuples(st.sampled_from(["t", "u"]), st.sampled_from(["", "a", "b"])), st.integers(0, 4)
)
_limits = st.none() | st.integers(1, 4)


@given(
    st.lists(_jobs, max_size=20, unique_by=lambda job: job.id),
    st.tuples(st.integers(0, 9), _limits, _limits),
    st.tuples(st.integers(0, 9), _limits, _limits),
    st.integers(0, 12),
    _counts,
    _counts,
)
def test_no_limit_is_passed_and_no_place_is_wasted(
    jobs: list[Candidate],
    one: tuple[int, int | None, int | None],
    other: tuple[int, int | None, int | None],
    places: int,
    live: dict[Key, int],
    started: dict[Key, int],
) -> None:
    lines = {"t": Line("t", *one), "u": Line("u", *other)}
    admission = admit(jobs, lines, places=places, live=live, started=started)
    by_id = {job.id: job for job in jobs}
    taken = Counter(key_of(by_id[job]) for job in admission.chosen)
    by_type = Counter(by_id[job].type for job in admission.chosen)
    place_of = {
        job.id: place
        for place, job in enumerate(sorted(jobs, key=lambda job: (job.order_key, job.id)))
    }

    def is_full(key: Key) -> bool:
        line = lines[key[0]]
        running, starts = live.get(key, 0) + taken[key], started.get(key, 0) + taken[key]
        return (line.places_per_key is not None and running >= line.places_per_key) or (
            line.starts_per_key is not None and starts >= line.starts_per_key
        )

    assert len(set(admission.chosen)) == len(admission.chosen) <= places
    assert admission.chosen == sorted(admission.chosen, key=place_of.__getitem__)
    for type_, line in lines.items():
        assert by_type[type_] <= line.places
    for key, count in taken.items():
        line = lines[key[0]]
        if line.places_per_key is not None:
            assert live.get(key, 0) + count <= line.places_per_key
        if line.starts_per_key is not None:
            assert started.get(key, 0) + count <= line.starts_per_key
    assert all(is_full(key) for key in admission.full)
    # Whoever stayed behind found no place of any kind; and the first of a key goes first.
    for job in jobs:
        if job.id in admission.chosen:
            continue
        line, key = lines[job.type], key_of(job)
        no_place = len(admission.chosen) == places or by_type[job.type] == line.places
        assert no_place or (line.counts_by_key and is_full(key))
        for chosen in admission.chosen:
            if key_of(by_id[chosen]) == key:
                assert place_of[chosen] < place_of[job.id]
