"""What senders may make the figures hold."""

import subprocess
import sys

import pytest
from prometheus_client import REGISTRY

from hybridjobs.counts import OTHER
from hybridjobs.ingress import metrics
from hybridjobs.ingress.metrics import MAX_UNMATCHED, count_unmatched

NAME = "hybridjobs_webhook_unmatched_events_total"


def test_events_of_ever_new_names_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics._unmatched, "_values", {})
    for number in range(2 * MAX_UNMATCHED):
        count_unmatched("cloudevents", f"type-{number}")
    count_unmatched("cloudevents", "type-0")
    [family] = [each for each in REGISTRY.collect() if each.name == NAME.removesuffix("_total")]
    assert len(family.samples) == MAX_UNMATCHED + 1
    counted = {each.labels["event"]: each.value for each in family.samples}
    assert counted["type-0"] == 2
    assert counted[OTHER] == MAX_UNMATCHED


def test_what_callbacks_may_come_to_is_told_before_the_first() -> None:
    """Prometheus sees a rise, and alerts, only where it saw 0 before."""
    ask = (
        "from prometheus_client import REGISTRY; import hybridjobs.ingress.metrics; "
        "print(REGISTRY.get_sample_value("
        "'hybridjobs_callback_tries_total', {'result': 'failed'}))"
    )
    said = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert said.stdout == "0\n"
