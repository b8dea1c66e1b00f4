"""Token buckets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs.ingress.limits import RateLimit
from hybridjobs.ingress.problems import Refused


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def taken(limit: RateLimit, key: str, tries: int) -> int:
    """How many of the tries get through."""
    through = 0
    for _ in range(tries):
        try:
            limit.take(key)
        except Refused:
            continue
        through += 1
    return through


@pytest.mark.parametrize(("per_second", "burst"), [(10, 20), (1, 2), (0.5, 1), (0.1, 1)])
def test_two_seconds_worth_at_once_then_the_rate(per_second: float, burst: int) -> None:
    clock = Clock()
    limit = RateLimit(per_second, clock=clock)
    assert taken(limit, "a", 100) == burst
    clock.now += 20
    assert taken(limit, "a", 100) == burst
    clock.now += 1 / per_second
    assert taken(limit, "a", 100) == 1


def test_keys_do_not_share() -> None:
    limit = RateLimit(1, clock=Clock())
    assert [taken(limit, key, 5) for key in "abc"] == [2, 2, 2]


def test_zero_is_no_limit() -> None:
    assert taken(RateLimit(0), "a", 10_000) == 10_000


def test_the_refusal_says_when_to_come_again() -> None:
    clock = Clock()
    limit = RateLimit(0.1, clock=clock)
    limit.take("a")
    with pytest.raises(Refused) as caught:
        limit.take("a")
    assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "10"})
    clock.now += 10
    limit.take("a")


@given(st.lists(st.floats(0, 2), max_size=60), st.floats(0.5, 20))
def test_never_more_than_the_rate_and_the_burst(steps: list[float], per_second: float) -> None:
    clock = Clock()
    limit = RateLimit(per_second, clock=clock)
    through = 0
    for step in steps:
        clock.now += step
        through += taken(limit, "a", 5)
    burst = max(2 * per_second, 1)
    assert through <= burst + per_second * (clock.now - 100) + 1e-3


def test_buckets_are_bounded_and_the_full_ones_go_first() -> None:
    clock = Clock()
    limit = RateLimit(1, clock=clock)
    assert taken(limit, "busy", 2) == 2
    for number in range(9_999):
        limit.take(f"{number}")
    clock.now += 1.5
    limit.take("one more")
    assert len(limit._full_at) <= 10_000
    assert taken(limit, "busy", 5) == 1
