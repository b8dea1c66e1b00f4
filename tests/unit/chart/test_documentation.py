"""What the documentation says of the chart: its values, and the commands of helm."""

import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.chart.helm import CHART, KUBERNETES, environment, helm, pod_templates, render
from tests.unit.docs.pages import (
    PAGES,
    ROOT,
    commands,
    examples,
    inline,
    name_of,
    yaml_examples,
)

_SCHEMA = json.loads((CHART / "values.schema.json").read_text())
_SETTING = re.compile(r"^\| `(HYBRIDJOBS_\w+)` \|.*?\| ?(.*?) ?\|.*\|$", re.MULTILINE)


def _is_value(path: str) -> bool:
    schema = _SCHEMA
    for part in path.split("."):
        if part not in schema.get("properties", {}):
            return "additionalProperties" in schema and schema["additionalProperties"] is not False
        schema = schema["properties"][part]
    return True


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_value_that_is_named_is_the_chart_s(page: Path) -> None:
    tables = {
        table
        for path in (ROOT / "operator" / "hybridjobs" / "store" / "migrations").glob("*.sql")
        for table in re.findall(r"CREATE TABLE (github\.\w+)", path.read_text())
    }
    for text in inline(page):
        path = text.partition("=")[0]
        first = path.partition(".")[0]
        if "." in path and re.fullmatch(r"[a-zA-Z.]+", path) and first in _SCHEMA["properties"]:
            assert _is_value(path) or path in tables, path


def _helm_commands() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Pages, and what is set by a command of helm, or by a line of options alone."""
    for example in examples("", "sh"):
        for line in commands(example.text):
            if line.startswith(("helm install ", "helm upgrade ", "--set")) and "--set" in line:
                words = shlex.split(line)
                yield (
                    example.page,
                    tuple(
                        word
                        for option, value in pairwise(words)
                        if option.startswith("--set")
                        for word in (option, value)
                    ),
                )


@pytest.mark.parametrize(("page", "options"), sorted(set(_helm_commands())))
def test_what_a_command_of_helm_sets_is_taken(
    page: str, options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for option, value in pairwise(options):
        if option == "--set-file":
            (tmp_path / value.partition("=")[2]).write_text("-----BEGIN KEY-----\n")
    helm("template", "hybridjobs", CHART, "--kube-version", KUBERNETES, *options)


def test_commands_of_helm_are_found() -> None:
    assert len(set(_helm_commands())) >= 5


def _values() -> list[tuple[str, Any]]:
    """Pages, and the examples that are values of the chart."""
    found = [(example.page, yaml.safe_load(example.text)) for example in yaml_examples()]
    return [(page, body) for page, body in found if body.keys() <= _SCHEMA["properties"].keys()]


@pytest.mark.parametrize(("page", "values"), _values())
def test_values_of_an_example_make_a_release(page: str, values: dict[str, Any]) -> None:
    assert render(values)


def test_examples_of_values_are_found() -> None:
    assert len(_values()) >= 6


def test_the_page_on_settings_says_which_the_chart_sets() -> None:
    everything: dict[str, Any] = {
        "webhooks": {
            "standard": {"secrets": {"acme": "whsec_YQ=="}},
            "cloudevents": {"enabled": True},
            "inngest": {
                "enabled": True,
                "signingKey": "0a",
                "serveOrigin": "https://hooks.example.org",
                "apiUrl": "http://inngest:8288",
                "eventUrl": "http://inngest:8288",
                "dev": True,
            },
        },
        "callbacks": {"allow": ["10.0.0.0/8"], "private": ["8.0.0.0/8"]},
        "github": {"redelivery": {"appId": "1", "hooks": ["o/1"], "existingSecret": "s"}},
    }
    pods = pod_templates(render(everything))
    given = {
        name
        for component in ("ingress", "operator")
        for container in (component, "migrate")
        for name in environment(pods[f"Deployment/hybridjobs-{component}"], container)
        if name.startswith("HYBRIDJOBS_") and not name.startswith("HYBRIDJOBS_CHILD_ENV_")
    }
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    rows = _SETTING.findall(page.partition("## Command line")[0])
    assert {name for name, chart in rows if chart} == given
    assert {name for name, chart in rows if not chart} & given == set()
