from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY

from hybridjobs import observed
from hybridjobs.counts import OTHER
from hybridjobs.ids import new_id
from hybridjobs.model import AttemptEnd, Outcome
from hybridjobs.observed import MAX_REASONS, EndedAttempt, attempt_claimed, attempt_ended

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"hybridjobs_{name}", labels) or 0.0


def row(type_: str, *, seconds: float | None = None) -> EndedAttempt:
    started = None if seconds is None else NOW - timedelta(seconds=seconds)
    return EndedAttempt(new_id(), 1, type_, None, NOW - timedelta(hours=1), started, NOW)


def test_an_end_has_its_reason_its_duration_and_its_lag() -> None:
    labels = {"type": "test/observed", "outcome": "failed", "reason": "Error"}
    lag = sample("record_lag_seconds_sum")
    ended = AttemptEnd(Outcome.FAILED, "Error", ended_at=NOW)
    attempt_ended(row("test/observed", seconds=40), ended, NOW + timedelta(seconds=3))
    # Machines' clocks differ: one that ended in the future is no negative lag.
    attempt_ended(row("test/observed"), ended, NOW - timedelta(days=1))
    attempt_ended(row("test/observed"), AttemptEnd(Outcome.FAILED, "Error"), NOW)
    assert sample("attempts_ended_total", **labels) == 3
    assert sample("record_lag_seconds_sum") == lag + 3
    assert sample("attempt_seconds_sum", type="test/observed") == 40
    assert sample("attempt_seconds_count", type="test/observed") == 1


def test_a_wait_is_counted_by_type() -> None:
    attempt_claimed("test/waited", 7.5)
    attempt_claimed("test/waited", -0.1)
    assert sample("queue_wait_seconds_sum", type="test/waited") == 7.5
    assert sample("queue_wait_seconds_count", type="test/waited") == 2


def test_reasons_of_ever_new_names_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed._ended, "_values", {})
    for number in range(2 * MAX_REASONS):
        attempt_ended(row("test/many"), AttemptEnd(Outcome.LOST, f"Reason{number}"), NOW)
    labels = {"type": "test/many", "outcome": "lost", "reason": OTHER}
    assert sample("attempts_ended_total", **labels) == MAX_REASONS
