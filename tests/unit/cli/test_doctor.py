"""How doctor judges what it finds."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridjobs.cli.doctor import (
    Finding,
    clock_finding,
    durability_finding,
    standby_finding,
    version_finding,
)
from hybridjobs.kube.rights import RIGHTS
from hybridjobs.store.server import ServerFacts

NOW = datetime(2026, 11, 24, tzinfo=UTC)
FACTS = ServerFacts(
    version="18.1",
    major=18,
    now=NOW,
    is_standby=False,
    fsync=True,
    synchronous_commit="on",
    synchronous_standby_names="ANY 1 (a, b)",
)
MANIFESTS = Path(__file__).parents[3] / "manifests"


def test_a_good_server() -> None:
    for judge in (version_finding, durability_finding, standby_finding):
        assert judge(FACTS).level == "ok"


@pytest.mark.parametrize(
    ("changes", "judge", "level"),
    [
        ({"major": 15}, version_finding, "fail"),
        ({"is_standby": True}, version_finding, "fail"),
        ({"fsync": False}, durability_finding, "fail"),
        ({"synchronous_commit": "off"}, durability_finding, "fail"),
        ({"synchronous_commit": "local"}, durability_finding, "ok"),
        ({"synchronous_commit": "local"}, standby_finding, "warn"),
        ({"synchronous_standby_names": ""}, standby_finding, "warn"),
    ],
)
def test_a_server_with_a_fault(
    changes: dict[str, Any], judge: Callable[[ServerFacts], Finding], level: str
) -> None:
    finding = judge(replace(FACTS, **changes))
    assert finding.level == level
    assert level == "ok" or finding.action


@pytest.mark.parametrize(
    ("seconds", "level"),
    [(0, "ok"), (1.9, "ok"), (-2.5, "ok"), (5, "warn"), (-5, "warn"), (60, "fail"), (-60, "fail")],
)
def test_clocks_apart(seconds: float, level: str) -> None:
    there = NOW + timedelta(seconds=seconds)
    finding = clock_finding("clock", there, NOW, NOW + timedelta(milliseconds=20))
    assert finding.level == level
    if level != "ok":
        assert ("ahead" if seconds > 0 else "behind") in finding.message


def test_what_cannot_be_told_within_a_slow_answer_is_no_fault() -> None:
    there = NOW + timedelta(seconds=10)
    assert clock_finding("clock", there, NOW, NOW + timedelta(seconds=20)).level == "ok"


@pytest.mark.parametrize("process", ["ingress", "operator"])
def test_doctor_asks_for_what_the_manifests_give(process: str) -> None:
    given = {
        (verb, group, resource)
        for document in yaml.safe_load_all((MANIFESTS / f"{process}.yaml").read_text())
        if document["kind"] == "Role"
        for rule in document["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    for right in RIGHTS[process]:
        names = filter(None, (right.resource.plural, right.subresource))
        assert (right.verb, right.resource.group, "/".join(names)) in given
