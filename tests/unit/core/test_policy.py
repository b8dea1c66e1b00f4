from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs.model import AttemptEnd, ErrorCategory, Outcome, Retry, Status
from hybridjobs.policy import (
    Again,
    Finish,
    JobHistory,
    after_attempt,
    backoff_ceiling_seconds,
    category,
    order_key,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FRESH = JobHistory(retry_count=0, max_retries=3)
SPENT = JobHistory(retry_count=3, max_retries=3)


def _after(outcome: Outcome, history: JobHistory = FRESH, **retry: object) -> Finish | Again:
    end = AttemptEnd(outcome, "Reason")
    return after_attempt(end, history, Retry.model_validate(retry), now=NOW, jitter=0.5)


@pytest.mark.parametrize(
    ("outcome", "history", "expected"),
    [
        (Outcome.SUCCEEDED, SPENT, Finish(Status.COMPLETED)),
        (Outcome.FAILED, FRESH, Again(NOW + timedelta(seconds=15), spends_retry=True)),
        (Outcome.FAILED, SPENT, Finish(Status.FAILED)),
        (Outcome.PERMANENT, FRESH, Finish(Status.FAILED)),
        (Outcome.DEADLINE, FRESH, Finish(Status.FAILED)),
        (Outcome.OOM, FRESH, Finish(Status.FAILED)),
        (Outcome.NEVER_STARTED, SPENT, Finish(Status.FAILED)),
        (Outcome.DISRUPTED, SPENT, Again(NOW, spends_retry=False)),
        (Outcome.LOST, SPENT, Again(NOW, spends_retry=False)),
        (Outcome.NODE_LOST, SPENT, Again(NOW, spends_retry=False)),
        (Outcome.DISRUPTED, JobHistory(3, 3, free_retries=5), Finish(Status.FAILED)),
        (Outcome.CANCELLED, FRESH, Finish(Status.CANCELLED)),
        (Outcome.FAILED, JobHistory(0, 3, cancel_requested=True), Finish(Status.CANCELLED)),
        (Outcome.SUCCEEDED, JobHistory(0, 3, cancel_requested=True), Finish(Status.COMPLETED)),
        (Outcome.OVER_BUDGET, FRESH, Again(NOW, spends_retry=False)),
        (Outcome.OVER_BUDGET, JobHistory(0, 0), Finish(Status.FAILED)),
    ],
)
def test_what_follows(outcome: Outcome, history: JobHistory, expected: Finish | Again) -> None:
    assert _after(outcome, history) == expected


def test_a_type_may_retry_deadlines_and_oom() -> None:
    assert isinstance(_after(Outcome.DEADLINE, onDeadline="Retry"), Again)
    assert isinstance(_after(Outcome.OOM, onOOM="Retry"), Again)


def test_the_handler_names_the_time() -> None:
    end = AttemptEnd(Outcome.RETRY_LATER, "RetryLater", retry_after_seconds=90)
    again = after_attempt(end, SPENT, Retry(), now=NOW, jitter=0.9)
    assert again == Again(NOW + timedelta(seconds=90), spends_retry=False)


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_is_jittered_and_bounded(retries: int, jitter: float) -> None:
    retry = Retry()
    ceiling = backoff_ceiling_seconds(retry, retries)
    assert 0 < ceiling <= retry.max_seconds
    history = JobHistory(retries, retries + 1)
    end = AttemptEnd(Outcome.FAILED, "Error")
    again = after_attempt(end, history, retry, now=NOW, jitter=jitter)
    assert isinstance(again, Again)
    assert timedelta(0) <= again.run_at - NOW <= timedelta(seconds=ceiling)


@given(st.sampled_from(list(Outcome)), st.integers(0, 5), st.integers(0, 5), st.booleans())
def test_nothing_goes_on_for_ever(
    outcome: Outcome, retries: int, limit: int, cancelled: bool
) -> None:
    free = 0
    for _ in range(200):
        history = JobHistory(retries, limit, cancel_requested=cancelled, free_retries=free)
        decision = _after(outcome, history, onDeadline="Retry", onOOM="Retry")
        if isinstance(decision, Finish) or outcome is Outcome.OVER_BUDGET:
            return
        retries += decision.spends_retry
        free += not decision.spends_retry
    pytest.fail("no end in 200 attempts")


def test_categories() -> None:
    assert category(AttemptEnd(Outcome.SUCCEEDED, "")) is None
    assert category(AttemptEnd(Outcome.OOM, "")) is ErrorCategory.OOM
    assert category(AttemptEnd(Outcome.FAILED, "")) is ErrorCategory.UNKNOWN


def test_a_higher_priority_stands_further_ahead() -> None:
    assert order_key(NOW, 10) < order_key(NOW, 0) < order_key(NOW, -10)
