"""Monitors and alerts: each names metrics that there are, and has a page that says what to do."""

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

import hybridjobs.controller.metrics
import hybridjobs.ingress.metrics  # noqa: F401 - both register theirs
from tests.unit.chart.helm import named, of_kind, pod_templates, render

PAGE = Path(__file__).parents[3] / "docs" / "operations" / "alerts.md"


@pytest.fixture(scope="module")
def release() -> Any:
    return render({"monitoring": {"enabled": True, "labels": {"release": "prometheus"}}})


@pytest.fixture(scope="module")
def alerts(release: Any) -> list[Any]:
    (group,) = named(release, "PrometheusRule", "hybridjobs")["spec"]["groups"]
    rules: list[Any] = group["rules"]
    return rules


def test_there_are_none_unless_asked_for() -> None:
    assert of_kind(render(), "PodMonitor") == of_kind(render(), "PrometheusRule") == []


def test_ingress_and_operator_are_asked_at_a_port_that_they_have(release: Any) -> None:
    monitor = named(release, "PodMonitor", "hybridjobs")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (expression,) = monitor["spec"]["selector"]["matchExpressions"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    seen = set()
    for template in pod_templates(release).values():
        component = template["metadata"]["labels"].get("app.kubernetes.io/component")
        if component in expression["values"]:
            ports = [port["name"] for port in template["spec"]["containers"][0]["ports"]]
            assert endpoint["port"] in ports
            seen.add(component)
    assert seen == set(expression["values"])


def test_alerts_name_metrics_that_there_are(alerts: list[Any]) -> None:
    known = {
        f"{family.name}{suffix}"
        for family in REGISTRY.collect()
        for suffix in {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(
            family.type, [""]
        )
    }
    for alert in alerts:
        used = set(re.findall(r"hybridjobs_\w+", alert["expr"]))
        assert used, alert
        assert used <= known, used - known
        # Of this release alone.
        assert alert["expr"].count('namespace="hybridjobs"') == len(
            re.findall(r"hybridjobs_\w+", alert["expr"])
        )


def test_each_alert_has_its_part_of_the_page_and_each_part_its_alert(alerts: list[Any]) -> None:
    parts = re.findall(r"^## (\w+)$", PAGE.read_text(), re.MULTILINE)
    assert parts == [alert["alert"] for alert in alerts]
    for alert in alerts:
        anchor = alert["annotations"]["runbook"].partition("#")[2]
        assert anchor == alert["alert"].lower()
        assert alert["labels"]["severity"] in ("critical", "warning")
