"""Each alert, evaluated by Prometheus' own tool: when it fires, and when it does not."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.chart.helm import Object, named, render
from tests.unit.chart.promtool import promtool

_HERE = 'namespace="hybridjobs"'
_ELSEWHERE = 'namespace="elsewhere"'


def _leading(*values: str) -> dict[str, str]:
    return {
        f'hybridjobs_operator_leading{{{_HERE},pod="{pod}"}}': value
        for pod, value in zip("ab", values, strict=True)
    }


def _webhooks(result: str, values: str, where: str = _HERE) -> dict[str, str]:
    labels = f'{where},source="github",result="{result}"'
    return {f"hybridjobs_webhook_requests_total{{{labels}}}": values}


def _looks(result: str, values: str) -> dict[str, str]:
    return {f'hybridjobs_reconcile_seconds_count{{{_HERE},result="{result}"}}': values}


def _requests(code: str, values: str) -> dict[str, str]:
    labels = f'{_HERE},verb="GET",code="{code}"'
    return {f"hybridjobs_kubernetes_requests_total{{{labels}}}": values}


def _watch_age(values: str) -> dict[str, str]:
    return {f'hybridjobs_watch_age_seconds{{{_HERE},resource="pods"}}': values}


def _lags(within_a_minute: str, within_five: str) -> dict[str, str]:
    buckets = {"60": within_a_minute, "300": within_five, "+Inf": within_five}
    return {
        f'hybridjobs_record_lag_seconds_bucket{{{_HERE},le="{le}"}}': values
        for le, values in buckets.items()
    }


def _oldest(values: str) -> dict[str, str]:
    return {f'hybridjobs_oldest_ready_seconds{{{_HERE},type="a/b"}}': values}


def _ended(**values: str) -> dict[str, str]:
    labels = f'{_HERE},type="a/b",reason="R"'
    return {
        f'hybridjobs_attempts_ended_total{{{labels},outcome="{outcome}"}}': each
        for outcome, each in values.items()
    }


def _callbacks(**values: str) -> dict[str, str]:
    return {
        f'hybridjobs_callback_tries_total{{{_HERE},result="{result}"}}': each
        for result, each in values.items()
    }


# What an alert says of whom it is about.
_TELLS = {
    "HybridJobsWebhooksFail": {"source": "github"},
    "HybridJobsWatchUnproved": {"resource": "pods"},
    "HybridJobsWaitLong": {"type": "a/b"},
    "HybridJobsNeverStart": {"type": "a/b", "reason": "R"},
    "HybridJobsFail": {"type": "a/b"},
}
# (alert, series in Prometheus' notation with a value a minute, minute that is looked at)
FIRES = [
    ("HybridJobsNoOperatorLeads", _leading("0x9", "0x9"), 3),
    ("HybridJobsNoOperatorLeads", {}, 3),
    ("HybridJobsWebhooksFail", _webhooks("failed", "0+1x30"), 12),
    ("HybridJobsDatabaseAway", _looks("database_unavailable", "0+1x30"), 12),
    ("HybridJobsApiServerAway", _requests("0", "0+1x30"), 16),
    ("HybridJobsApiServerAway", _requests("503", "0+1x30"), 16),
    ("HybridJobsLooksFail", _looks("error", "0+1x30"), 16),
    ("HybridJobsWatchUnproved", _watch_age("0+60x30"), 14),
    ("HybridJobsOutcomesLate", _lags("0+1x40", "0+2x40"), 25),
    ("HybridJobsWaitLong", _oldest("3601x20"), 11),
    ("HybridJobsNeverStart", _ended(never_started="_x4 1x4 2x4 3x4 4x30"), 30),
    ("HybridJobsFail", _ended(failed="0+2x90", succeeded="0+1x90"), 65),
    ("HybridJobsFail", _ended(failed="0+1x90", disrupted="0+0x90"), 65),
    ("HybridJobsCallbacksGivenUp", _callbacks(failed="0x5 1x30", pending="0+1x40"), 8),
]
SILENT = [
    ("HybridJobsNoOperatorLeads", _leading("0x9", "1x9"), 8),
    ("HybridJobsNoOperatorLeads", _leading("1x3 0x9", "0x4 1x9"), 6),  # one takes over
    ("HybridJobsWebhooksFail", _webhooks("failed", "7x30"), 12),  # long ago
    ("HybridJobsWebhooksFail", _webhooks("refused", "0+1x30"), 12),
    ("HybridJobsWebhooksFail", _webhooks("failed", "0+1x30", _ELSEWHERE), 12),
    ("HybridJobsDatabaseAway", _looks("ok", "0+1x30"), 12),
    ("HybridJobsApiServerAway", _requests("429", "0+1x30"), 16),
    ("HybridJobsApiServerAway", _requests("0", "0+1x4 5x30"), 16),  # for some minutes
    ("HybridJobsLooksFail", _looks("moved_on", "0+1x30"), 16),
    ("HybridJobsWatchUnproved", _watch_age("0+30x9 0+30x9 0+30x9"), 25),
    ("HybridJobsOutcomesLate", _lags("0+2x40", "0+2x40"), 25),
    ("HybridJobsWaitLong", _oldest("3599x20"), 11),
    ("HybridJobsNeverStart", _ended(never_started="0x4 1x40"), 31),  # once
    ("HybridJobsFail", _ended(failed="0+1x90", succeeded="0+2x90"), 65),
    ("HybridJobsFail", _ended(disrupted="0+2x90", succeeded="0+1x90"), 65),
    ("HybridJobsCallbacksGivenUp", _callbacks(failed="0x40", pending="0+1x40"), 8),
]


@pytest.fixture(scope="module")
def rule(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Object]]:
    """The rules as Prometheus reads them, and each by its name."""
    body = named(render({"monitoring": {"enabled": True}}), "PrometheusRule", "hybridjobs")
    path = tmp_path_factory.mktemp("alerts") / "rules.json"
    path.write_text(json.dumps(body["spec"]))
    [group] = body["spec"]["groups"]
    return path, {each["alert"]: each for each in group["rules"]}


def _evaluate(
    rules: Path, alert: str, series: dict[str, str], minute: int, expected: list[Any]
) -> None:
    path = rules.with_name("case.json")
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": each} for name, each in series.items()],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": expected}
        ],
    }
    path.write_text(json.dumps({"rule_files": [str(rules)], "tests": [case]}))
    promtool("test", "rules", path)


@pytest.mark.parametrize(("alert", "series", "minute"), FIRES)
def test_an_alert_fires(
    rule: tuple[Path, dict[str, Object]], alert: str, series: dict[str, str], minute: int
) -> None:
    path, rules = rule
    expected = {
        "exp_labels": {**rules[alert]["labels"], **_TELLS.get(alert, {})},
        "exp_annotations": rules[alert]["annotations"],
    }
    _evaluate(path, alert, series, minute, [expected])


@pytest.mark.parametrize(("alert", "series", "minute"), SILENT)
def test_an_alert_is_silent(
    rule: tuple[Path, dict[str, Object]], alert: str, series: dict[str, str], minute: int
) -> None:
    _evaluate(rule[0], alert, series, minute, [])


def test_each_alert_is_seen_both_ways(rule: tuple[Path, dict[str, Object]]) -> None:
    assert {each for each, _, _ in FIRES} == {each for each, _, _ in SILENT} == set(rule[1])
    promtool("check", "rules", rule[0])
