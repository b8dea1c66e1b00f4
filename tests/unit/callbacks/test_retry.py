"""What follows a try."""

from datetime import UTC, datetime, timedelta
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs.callbacks.retry import retry_after_seconds, wait_before_next, what_follows
from hybridjobs.callbacks.sender import Answer
from hybridjobs.store.callbacks import DeliveryStatus, Tried

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
DAY = timedelta(days=1)


def _after(
    code: int | None = None,
    *,
    failures: int = 0,
    left: timedelta = 3 * DAY,
    retry_after: str | None = None,
    error: str | None = None,
    permanent: bool = False,
) -> Tried:
    answer = Answer(NOW, 5, code, error, permanent, retry_after)
    return what_follows(answer, failures=failures, give_up_at=NOW + left, now=NOW, jitter=0.5)


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_2xx_is_delivered(code: int) -> None:
    tried = _after(code)
    assert (tried.status, tried.error, tried.wait) == (DeliveryStatus.DELIVERED, None, None)


def test_410_disables() -> None:
    assert _after(410).status is DeliveryStatus.DISABLED


@pytest.mark.parametrize("code", [300, 301, 302, 307, 308, 400, 401, 404, 429, 500, 503, 599])
def test_every_other_status_is_tried_again(code: int) -> None:
    tried = _after(code)
    assert tried.status is DeliveryStatus.PENDING
    assert tried.wait == timedelta(seconds=10)
    assert tried.error == f"the receiver answered {code}"


def test_what_can_never_succeed_fails_at_once() -> None:
    tried = _after(error="the URL must be https", permanent=True)
    assert (tried.status, tried.wait) == (DeliveryStatus.FAILED, None)
    assert tried.error == "the URL must be https"


def test_nothing_is_tried_after_it_is_given_up() -> None:
    assert _after(500, left=timedelta(seconds=10)).status is DeliveryStatus.PENDING
    assert _after(500, left=timedelta(seconds=9)).status is DeliveryStatus.FAILED
    assert _after(503, left=DAY, retry_after="86401").status is DeliveryStatus.PENDING
    assert _after(200, left=-DAY).status is DeliveryStatus.DELIVERED


def test_the_tries_spread_over_three_days() -> None:
    waits = [
        wait_before_next(None, failures=n, now=NOW, jitter=0.5).total_seconds() for n in range(20)
    ]
    assert waits[:8] == [10, 30, 90, 270, 810, 2430, 7290, 21870]
    assert set(waits[8:]) == {8 * 3600}
    within = [total for total in accumulate(waits) if total <= 3 * 86_400]
    assert 14 <= len(within) <= 18


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_waits_are_bounded_and_jittered(failures: int, jitter: float) -> None:
    seconds = wait_before_next(None, failures=failures, now=NOW, jitter=jitter).total_seconds()
    middle = wait_before_next(None, failures=failures, now=NOW, jitter=0.5).total_seconds()
    assert 0.79 * middle <= seconds <= 1.21 * middle
    assert 8 <= seconds <= 9.6 * 3600


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("0", 0),
        (" 120 ", 120),
        ("-5", 0),
        ("1.5", 0),
        ("soon", 0),
        ("٣", 0),
        ("Tue, 24 Nov 2026 09:31:00 GMT", 60),
        ("Tue, 24 Nov 2026 09:29:00 GMT", 0),
        ("Tue, 24 Nov 2026 11:31:00 +0200", 60),
        ("Tue, 99 Nov 2026 09:31:00 GMT", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float) -> None:
    assert retry_after_seconds(header, NOW) == seconds


@given(st.text(max_size=40))
def test_any_retry_after_is_borne(header: str) -> None:
    wait = wait_before_next(header, failures=0, now=NOW, jitter=0)
    assert timedelta(seconds=8) <= wait <= DAY


def test_retry_after_makes_a_wait_longer_never_shorter_and_a_day_at_most() -> None:
    assert _after(503, retry_after="600").wait == timedelta(seconds=600)
    assert _after(503, retry_after="1").wait == timedelta(seconds=10)
    assert _after(503, retry_after="9" * 30).wait == DAY
