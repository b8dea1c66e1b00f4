"""Monitors, alerts, dashboard: they name metrics that there are, and alerts have their page."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from hybridjobs import observed
from hybridjobs.controller import metrics as controller
from hybridjobs.ids import new_id
from hybridjobs.ingress import metrics as ingress
from hybridjobs.model import AttemptEnd, Enqueued, Outcome, Status
from hybridjobs.observed import EndedAttempt
from hybridjobs.store.statistics import ReadyLine
from tests.unit.chart.helm import environment, named, of_kind, pod_templates, render
from tests.unit.chart.promtool import promtool

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


@pytest.fixture(scope="module")
def told() -> dict[str, set[str]]:
    """The labels of each series that ingress and operator tell, as /metrics has them."""
    ingress.count_request("webhooks", 200)
    ingress.count_webhook("github", "accepted")
    ingress.count_unmatched("github", "push")
    ingress.count_enqueued([Enqueued(new_id(), "test/told", Status.QUEUED, True)], "github")
    ingress.observe_inline_run("test/told", "succeeded", 1)
    ingress.observe_callback("delivered", 1)
    ingress.observe_commit(1)
    now = datetime.now(UTC)
    row = EndedAttempt(new_id(), 1, "test/told", None, now, now, now)
    observed.attempt_ended(row, AttemptEnd(Outcome.SUCCEEDED, "Completed", ended_at=now), now)
    observed.attempt_claimed("test/told", 1)
    observed.kubernetes_answered("GET", 200)
    controller.watch_behind("pods", 0)
    controller.count_start(now, now)
    with controller.reconciling():
        controller.show_queue([ReadyLine("test/told", 1, 1)], ["test/paused"])
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest().decode()):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


def test_every_metric_is_documented_and_each_that_is_documented_is_told(
    told: dict[str, set[str]],
) -> None:
    docs = PAGE.parents[1]
    pages = (docs / "monitoring.md").read_text() + (docs / "reference" / "http.md").read_text()
    ours = {
        re.sub(r"_(bucket|sum|count|created)$", "", name)
        for name in told
        if name.startswith("hybridjobs_")
    }
    # A counter's time of creation comes without the counter's own ending.
    ours = {name for name in ours if f"{name}_total" not in ours}
    assert set(re.findall(r"^\| `(hybridjobs_\w+)` \|", pages, re.MULTILINE)) == ours


@pytest.fixture(scope="module")
def dashboard() -> Any:
    values = {"annotations": {"grafana_folder": "Jobs"}, "enabled": True}
    release = render({"monitoring": {"dashboard": values}})
    shipped = named(release, "ConfigMap", "hybridjobs-dashboard")
    assert shipped["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert shipped["metadata"]["annotations"] == {"grafana_folder": "Jobs"}
    return json.loads(shipped["data"]["hybridjobs.json"])


def _check(expression: str, told: dict[str, set[str]]) -> None:
    """Its metrics are told, with the labels that it chooses and groups by."""
    series = re.findall(r"(hybridjobs_\w+)(?:\{(.*?)\})?", expression)
    assert series, expression
    available: set[str] = {"le"}
    for name, matchers in series:
        assert name in told, f"{name} is told by nobody: {expression}"
        found = re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"[^"]*"', matchers)
        assert re.sub(r'\w+\s*(=~|!~|!=|=)\s*"[^"]*"', "", matchers).strip(" ,") == "", matchers
        assert set(found) - {"namespace"} <= told[name], expression
        assert "namespace" in found, f"not of this release alone: {expression}"
        available |= told[name]
    for group in re.findall(r"\bby \((.*?)\)", expression):
        assert {each.strip() for each in group.split(",")} <= available, expression
    for name, _ in series:
        # A counter is shown by its change, a histogram by its quantiles or their parts.
        if name.endswith(("_total", "_bucket", "_count", "_sum")):
            assert re.search(rf"\b(rate|increase)\({name}\b", expression), expression
        if name.endswith("_bucket"):
            assert re.search(r"histogram_quantile\(0\.\d+, sum by \(le\b", expression), expression


def test_alerts_name_metrics_and_labels_that_there_are(
    alerts: list[Any], told: dict[str, set[str]]
) -> None:
    for alert in alerts:
        _check(alert["expr"], told)
        assert alert["expr"].count('namespace="hybridjobs"') == len(
            re.findall(r"hybridjobs_\w+", alert["expr"])
        )


def test_the_dashboard_names_metrics_and_labels_that_there_are(
    dashboard: Any, told: dict[str, set[str]]
) -> None:
    targets = [each for panel in dashboard["panels"] for each in panel["targets"]]
    for target in targets:
        _check(target["expr"], told)
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        grouped = re.search(r"by \((.*?)\)", target["expr"])
        kept = set(re.split(r", ?", grouped[1])) - {"le"} if grouped else set()
        assert shown == kept, target
    [variable] = [each for each in dashboard["templating"]["list"] if each["type"] == "query"]
    asked = re.fullmatch(r"label_values\((\w+), namespace\)", variable["query"]["query"])
    assert asked is not None
    assert asked[1] in told


def test_the_dashboard_s_expressions_are_promql(dashboard: Any, tmp_path: Path) -> None:
    expressions = [each["expr"] for panel in dashboard["panels"] for each in panel["targets"]]
    rules = [
        {"record": f"panel:{number}", "expr": each.replace("$__rate_interval", "5m")}
        for number, each in enumerate(expressions)
    ]
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", path)


def test_the_dashboard_s_panels_have_words_units_and_places_of_their_own(dashboard: Any) -> None:
    panels = dashboard["panels"]
    assert (
        len({panel["id"] for panel in panels}) == len({p["title"] for p in panels}) == len(panels)
    )
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells


def test_there_is_no_dashboard_unless_asked_for() -> None:
    names = [each["metadata"]["name"] for each in of_kind(render(), "ConfigMap")]
    assert "hybridjobs-dashboard" not in names


def test_each_alert_has_its_part_of_the_page_and_each_part_its_alert(alerts: list[Any]) -> None:
    parts = re.findall(r"^## (\w+)$", PAGE.read_text(), re.MULTILINE)
    assert parts == [alert["alert"] for alert in alerts]
    for alert in alerts:
        anchor = alert["annotations"]["runbook"].partition("#")[2]
        assert anchor == alert["alert"].lower()
        assert alert["labels"]["severity"] in ("critical", "warning")


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("http://collector.obs:4318", 4318), ("https://otlp.example/base", 443), ("http://one", 80)],
)
def test_a_collector_is_named_to_all_that_trace_and_the_operator_may_call_it(
    endpoint: str, port: int
) -> None:
    release = render({"tracing": {"endpoint": endpoint}, "networkPolicy": {"enabled": True}})
    templates = pod_templates(release)
    ingress_ = environment(templates["Deployment/hybridjobs-ingress"], "ingress")
    operator = environment(templates["Deployment/hybridjobs-operator"], "operator")
    assert operator["OTEL_EXPORTER_OTLP_ENDPOINT"] == endpoint
    assert ingress_["OTEL_EXPORTER_OTLP_ENDPOINT"] == endpoint
    assert ingress_["HYBRIDJOBS_CHILD_ENV_OTEL_EXPORTER_OTLP_ENDPOINT"] == endpoint
    policy = named(release, "NetworkPolicy", "hybridjobs-operator")["spec"]
    assert port in [each["port"] for rule in policy["egress"] for each in rule["ports"]]


def test_nothing_is_traced_unless_asked_for() -> None:
    for template in pod_templates(render()).values():
        for container in template["spec"]["containers"]:
            assert not [each for each in container.get("env", []) if "OTEL" in each["name"]]
