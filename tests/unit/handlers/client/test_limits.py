from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs.handlers.github.client.limits import (
    Dry,
    Limit,
    choose,
    from_graphql,
    from_headers,
    is_news,
    unknown,
)

NOW = 1_000_000.0
RESET = NOW + 1800
A, B, C = b"a" * 32, b"b" * 32, b"c" * 32

# Windows are an hour apart; servers name the end of one within a second.
seen = st.builds(
    lambda window, jitter, remaining, blocked: Limit(
        5000, remaining, RESET + 3600 * window + jitter, blocked_until=blocked
    ),
    st.integers(0, 3),
    st.integers(0, 1),
    st.integers(0, 5000),
    st.sampled_from([0.0, NOW + 30, NOW + 60]),
)


def merge(limits: list[Limit]) -> Limit:
    result = limits[0]
    for each in limits[1:]:
        result = result.merged(each)
    return result


@given(
    st.lists(seen, min_size=1, max_size=8).flatmap(
        lambda x: st.tuples(st.just(x), st.permutations(x))
    )
)
def test_the_order_of_answers_does_not_matter(orders: tuple[list[Limit], list[Limit]]) -> None:
    assert merge(orders[0]) == merge(orders[1])


@given(st.lists(seen, min_size=1, max_size=8))
def test_the_least_of_the_last_window_holds(limits: list[Limit]) -> None:
    last = max(each.reset_at for each in limits)
    of_it = [each.remaining for each in limits if last - each.reset_at <= 1]
    assert merge(limits).remaining == min(of_it)
    assert merge(limits).reset_at == last


@given(seen, seen)
def test_what_remains_never_grows_within_a_window(known: Limit, told: Limit) -> None:
    merged = known.merged(told)
    assert merged.reset_at > known.reset_at + 1 or merged.remaining <= known.remaining


@pytest.mark.parametrize(
    ("limit", "reserve", "low"), [(5000, 10, 250), (100, 5, 50), (60, 3, 30), (10, 0, 5)]
)
def test_the_reserve_and_what_counts_as_little(limit: int, reserve: int, low: int) -> None:
    full = Limit(limit, limit, RESET)
    assert full.reserve == reserve
    assert full.left(NOW) == limit - reserve
    assert not replace(full, remaining=low + 1).is_low(NOW)
    assert replace(full, remaining=low).is_low(NOW)
    assert replace(full, remaining=low + 5, in_flight=5).is_low(NOW)
    assert replace(full, remaining=reserve).left(NOW) == 0


def test_a_window_that_has_ended_left_everything() -> None:
    ended = Limit(100, 0, NOW)
    assert (ended.left(NOW), ended.is_low(NOW)) == (95, False)
    assert (ended.left(NOW - 1), ended.is_low(NOW - 1)) == (0, True)


@pytest.mark.parametrize(
    ("limits", "chosen"),
    [
        ({A: Limit(5000, 100, RESET), B: Limit(5000, 200, RESET)}, B),
        ({A: Limit(5000, 100, RESET), B: None}, B),  # never used: probably full
        ({A: None, B: None}, A),
        ({A: Limit(5000, 4000, RESET, blocked_until=NOW + 9), B: Limit(5000, 20, RESET)}, B),
        ({A: Limit(5000, 10, RESET), B: Limit(5000, 11, RESET)}, B),  # the reserve is left
        ({A: Limit(5000, 0, NOW - 1), B: Limit(5000, 4000, RESET)}, A),  # its window is over
        ({A: Limit(15000, 9000, RESET), B: Limit(5000, 5000, RESET)}, A),
        ({A: Limit(5000, 90, RESET, in_flight=60), B: Limit(5000, 50, RESET)}, B),
    ],
)
def test_the_token_with_the_most_left_is_chosen(
    limits: dict[bytes, Limit | None], chosen: bytes
) -> None:
    assert choose(list(limits), limits.__getitem__, 1, NOW) == chosen


@pytest.mark.parametrize(
    ("limits", "cost", "dry"),
    [
        ({A: Limit(5000, 10, RESET)}, 1, Dry(RESET, secondary=False)),
        ({A: Limit(5000, 15, RESET)}, 6, Dry(RESET, secondary=False)),
        (
            {A: Limit(5000, 0, RESET), B: unknown(NOW + 60)},
            1,
            Dry(NOW + 60, secondary=True),
        ),
        (
            {A: Limit(5000, 0, RESET, blocked_until=RESET + 60)},
            1,
            Dry(RESET + 60, secondary=True),
        ),
    ],
)
def test_without_any_left_the_first_that_has_some_again_is_told(
    limits: dict[bytes, Limit | None], cost: int, dry: Dry
) -> None:
    assert choose(list(limits), limits.__getitem__, cost, NOW) == dry


def test_who_would_be_answered_for_nothing_goes_first_unless_little_remains() -> None:
    limits = {A: Limit(5000, 4000, RESET), B: Limit(5000, 300, RESET)}
    assert choose([A, B], limits.__getitem__, 1, NOW, {B}) == B
    limits[B] = Limit(5000, 200, RESET)
    assert choose([A, B], limits.__getitem__, 1, NOW, {B}) == A


@given(st.dictionaries(st.sampled_from([A, B, C]), seen, min_size=1), st.integers(1, 100))
def test_no_choice_goes_into_the_reserve(limits: dict[bytes, Limit], cost: int) -> None:
    chosen = choose(list(limits), limits.__getitem__, cost, NOW)
    if isinstance(chosen, Dry):
        assert chosen.until > NOW
        assert all(each.left(NOW) < cost or each.blocked_until > NOW for each in limits.values())
    else:
        assert limits[chosen].left(NOW) >= cost
        assert limits[chosen].blocked_until <= NOW


@pytest.mark.parametrize(
    ("written", "known", "age", "news"),
    [
        (None, Limit(5000, 4999, RESET), 0, True),
        (Limit(5000, 4999, RESET), Limit(5000, 4990, RESET), 1, False),
        (Limit(5000, 4999, RESET), Limit(5000, 4890, RESET), 1, True),
        (Limit(5000, 4999, RESET), Limit(5000, 4998, RESET), 11, True),
        (Limit(5000, 4999, RESET), Limit(5000, 4999, RESET), 11, False),
        (Limit(5000, 10, RESET), Limit(5000, 5000, RESET + 3600), 1, True),
        (Limit(5000, 201, RESET), Limit(5000, 200, RESET), 0, True),
        (Limit(5000, 4999, RESET), Limit(5000, 4999, RESET, blocked_until=NOW + 1), 0, True),
    ],
)
def test_others_are_told_what_they_must_know(
    written: Limit | None, known: Limit, age: float, news: bool
) -> None:
    assert is_news(written, known, NOW - age, NOW) is news


def test_limits_are_read_from_answers() -> None:
    headers = {
        "x-ratelimit-limit": "5000",
        "x-ratelimit-remaining": "4999",
        "x-ratelimit-reset": "1767225600",
    }
    expected = Limit(5000, 4999, 1767225600.0)
    assert from_headers(headers) == expected
    told = {"cost": 1, "limit": 5000, "remaining": 4999, "resetAt": "2026-01-01T00:00:00Z"}
    assert from_graphql(told) == expected
    for name in headers:
        assert from_headers(headers | {name: "soon"}) is None
    for odd in (None, {}, told | {"resetAt": "soon"}, told | {"limit": None}):
        assert from_graphql(odd) is None


def test_what_costs_more_than_a_point_is_counted_in_advance_always() -> None:
    plenty = Limit(5000, 4900, RESET)
    assert not plenty.is_low(NOW)
    assert plenty.is_low(NOW, cost=25)
    assert not plenty.is_low(RESET, cost=25)
