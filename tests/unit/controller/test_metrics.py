from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY

from hybridjobs.controller import metrics
from hybridjobs.errors import AttemptClosed, ClusterUnavailable, DatabaseUnavailable
from hybridjobs.ids import new_id

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"hybridjobs_{name}", labels) or 0.0


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (None, "ok"),
        (AttemptClosed(new_id(), 1), "moved_on"),
        (ClusterUnavailable("by test"), "cluster_unavailable"),
        (DatabaseUnavailable("by test"), "database_unavailable"),
        (ValueError("by test"), "error"),
    ],
)
def test_looks_are_counted_by_their_result(error: Exception | None, result: str) -> None:
    before = sample("reconcile_seconds_count", result=result)
    try:
        with metrics.reconciling():
            if error is not None:
                raise error
    except Exception as raised:
        assert raised is error  # noqa: PT017 - None where there is none
    assert sample("reconcile_seconds_count", result=result) == before + 1


def test_a_wait_ends_with_the_container_s_start() -> None:
    before = sample("start_wait_seconds_sum")
    metrics.count_start(NOW, NOW + timedelta(seconds=2))
    metrics.count_start(None, NOW)
    assert sample("start_wait_seconds_sum") == before + 2


def test_a_watch_s_age_begins_anew_when_a_check_finds_nothing_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(metrics, "monotonic", lambda: now)
    metrics.watch_behind("pods", 0)
    now = 130.0
    metrics.watch_behind("pods", 12.5)
    assert sample("watch_age_seconds", resource="pods") == 30
    assert sample("watch_behind_seconds", resource="pods") == 12.5
    metrics.watch_behind("pods", 0)
    now = 131.0
    assert sample("watch_age_seconds", resource="pods") == 1


def test_gauges_show_what_is_so_now() -> None:
    state = {"depth": 0, "leads": False}
    metrics.watch_state(depth=lambda: state["depth"], leads=lambda: bool(state["leads"]))
    assert (sample("workqueue_depth"), sample("operator_leading")) == (0, 0)
    state |= {"depth": 7, "leads": True}
    assert (sample("workqueue_depth"), sample("operator_leading")) == (7, 1)
