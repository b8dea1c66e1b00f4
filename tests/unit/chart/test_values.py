"""The values: all described, none unknown, and the chart passes helm's own checks."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.chart.helm import CHART, KUBERNETES, HelmError, helm, render, template


def _leaves(prefix: str, values: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        each = schema["properties"][name]
        if "properties" in each:
            yield from _leaves(f"{prefix}{name}.", value, each)
        else:
            yield prefix + name


def _properties(prefix: str, schema: dict[str, Any]) -> Iterator[str]:
    for name, each in schema["properties"].items():
        assert each["description"], prefix + name
        if "properties" in each:
            yield from _properties(f"{prefix}{name}.", each)
        else:
            yield prefix + name


def test_helm_lint_finds_nothing() -> None:
    helm("lint", "--strict", CHART, "--kube-version", KUBERNETES)


def test_schema_and_values_name_the_same() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    described = set(_properties("", schema)) - {"global"}
    assert described == set(_leaves("", values, schema))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ingres": {}}, "'ingres' not allowed"),
        ({"database": {"url": "x"}}, "'url' not allowed"),
        ({"ingress": {"replicas": 0}}, "/ingress/replicas"),
        ({"image": {"pullPolicy": "always"}}, "/image/pullPolicy"),
        ({"database": {"storage": {"size": "lots"}}}, "/database/storage/size"),
        ({"database": {"storage": {"size": "8K"}}}, "/database/storage/size"),
        ({"jobs": {"limits": {"cpu": "1.2.3"}}}, "/jobs/limits/cpu"),
        ({"jobs": {"limits": {"memory": "512K"}}}, "/jobs/limits/memory"),
        ({"nameOverride": "Shop"}, "/nameOverride"),
        ({"fullnameOverride": "1shop"}, "/fullnameOverride"),
        ({"ingress": {"podLabels": {"a": True}}}, "/ingress/podLabels/a"),
        ({"ingress": {"extraEnv": [{"name": "A-B", "value": "x"}]}}, "/ingress/extraEnv/0/name"),
    ],
)
def test_a_wrong_value_is_refused_by_its_place(values: dict[str, Any], message: str) -> None:
    with pytest.raises(HelmError, match=message):
        render(values)


def test_a_cluster_that_is_too_old_is_refused() -> None:
    with pytest.raises(HelmError, match=r">=1\.31"):
        template(kubernetes="1.30.0")


@pytest.fixture(scope="module")
def chart_with_notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart with its NOTES.txt as an object: `helm template` leaves notes out."""
    chart = tmp_path_factory.mktemp("chart") / "hybridjobs"
    shutil.copytree(CHART, chart)
    notes = (chart / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "notes.yaml").write_text(
        '{{- define "notes" }}' + notes + '{{ end }}notes: {{ include "notes" . | quote }}\n'
    )
    return chart


def _notes(chart: Path, values: dict[str, Any]) -> str:
    text = helm(
        *("template", "hybridjobs", chart, "--namespace", "team", "--kube-version", KUBERNETES),
        *("--show-only", "templates/notes.yaml", "--values", "-"),
        input_=json.dumps(values),
    )
    notes: str = yaml.safe_load(text)["notes"]
    return notes


def test_the_notes_say_what_comes_next(chart_with_notes: Path) -> None:
    notes = _notes(chart_with_notes, {})
    assert "one pod with one volume" in notes
    assert "get secret hybridjobs-github-webhook" in notes
    assert "port-forward service/hybridjobs-api 8081" in notes
    assert "60 requests an hour" in notes
    # An indented END ends no here-document.
    assert "<<" not in notes


def test_the_job_of_the_notes_is_one(chart_with_notes: Path) -> None:
    notes = _notes(chart_with_notes, {})
    (given,) = re.findall(r"echo '(\{.*?\})' \|", notes, re.DOTALL)
    job = yaml.safe_load(given)
    assert (job["kind"], job["spec"]["type"]) == ("HybridJob", "capture/repository.sync")


def test_the_notes_fit_the_values(chart_with_notes: Path) -> None:
    notes = _notes(
        chart_with_notes,
        {
            "database": {"embedded": False, "existingSecret": "db"},
            "github": {"existingSecret": "gh"},
            "webhooks": {"ingress": {"enabled": True, "host": "hooks.example.org"}},
        },
    )
    assert "https://hooks.example.org/webhooks/github" in notes
    assert "one pod with one volume" not in notes
    assert "60 requests an hour" not in notes
