"""Every rule of the definitions: an object that it accepts and one that it refuses.

examples/<kind>/<what>.yaml: `message` is what the API server says (`rule`, where the message is an
expression, what the definition says); with `before` the two are changes to that object.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridjobs.schedules.ticks import ALIASES
from tests.integration.crds.api import Api, hybridjob, hybridjobschedule
from tests.unit.chart.helm import Object, crds

_EXAMPLES = {
    str(path.relative_to(Path(__file__).parent / "examples").with_suffix("")): yaml.safe_load(
        path.read_text()
    )
    for path in sorted((Path(__file__).parent / "examples").rglob("*.yaml"))
}


def _messages(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for rule in schema.get("x-kubernetes-validations", []):
            yield rule["message"]
        for value in schema.values():
            yield from _messages(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _messages(value)


def test_every_rule_has_its_examples() -> None:
    for crd in crds():
        kind = crd["spec"]["names"]["kind"]
        shown = {
            example.get("rule", example["message"])
            for example in _EXAMPLES.values()
            if example["refused"]["kind"] == kind
        }
        assert shown == set(_messages(crd)), kind


@pytest.mark.parametrize("name", _EXAMPLES)
def test_rule(api: Api, name: str) -> None:
    example = _EXAMPLES[name]
    # Where no policy asks who is asking.
    where = f"--namespace={api.other_namespace}"
    verb = "create"
    if "before" in example:
        verb = "replace"
        made = api.send("create", example["before"], where)
        assert made.accepted, made.error
    accepted = api.send(verb, example["accepted"], where, "--dry-run=server")
    assert accepted.accepted, accepted.error
    refused = api.send(verb, example["refused"], where, "--dry-run=server")
    assert not refused.accepted
    assert example["message"].replace("hybridjobs.dev", api.group) in refused.error


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"type": "Test/Sync"}, "spec.type"),
        ({"type": "a" * 64}, "spec.type"),
        ({"type": "test/"}, "spec.type"),
        ({"deadlineSeconds": 0}, "spec.deadlineSeconds"),
        ({"deadlineSeconds": 86_401}, "spec.deadlineSeconds"),
        ({"priority": 101}, "spec.priority"),
        ({"jobId": "not-a-uuid"}, "spec.jobId"),
        ({"payload": [1]}, "spec.payload"),
        ({"ttlSecondsAfterFinished": -1}, "spec.ttlSecondsAfterFinished"),
    ],
)
def test_a_hybridjob_out_of_bounds_is_refused_by_its_field(
    api: Api, spec: Object, where: str
) -> None:
    answer = api.send("create", hybridjob("bounds", **spec), "--dry-run=server")
    assert not answer.accepted
    assert where in answer.error


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"mode": "slow"}, "spec.mode"),
        ({"mode": "quick", "budgetSeconds": 9}, "spec.budgetSeconds"),
        ({"deadlineSeconds": 86_401}, "spec.deadlineSeconds"),
        ({"startDeadlineSeconds": 0}, "spec.startDeadlineSeconds"),
        ({"gracePeriodSeconds": 601}, "spec.gracePeriodSeconds"),
        ({"retry": {"limit": 101}}, "spec.retry.limit"),
        ({"retry": {"permanentExitCodes": [0]}}, "spec.retry.permanentExitCodes"),
        ({"retry": {"permanentExitCodes": list(range(1, 52))}}, "spec.retry.permanentExitCodes"),
        ({"retry": {"onOOM": "Again"}}, "spec.retry.onOOM"),
        ({"concurrency": {"limit": 0}}, "spec.concurrency.limit"),
        *(
            ({"concurrency": {"limit": 1, "key": key}}, "spec.concurrency.key")
            for key in ("a..b", "a|b", "a | ", "/a", "a/b |c")
        ),
        ({"throttle": {"limit": 1}}, "periodSeconds"),
        ({"resources": {"limits": {"memory": "much"}}}, "spec.resources.limits.memory"),
        ({"events": ["a", "a"]}, "spec.events"),
        ({"env": [{"name": "A-B"}]}, "spec.env[0].name"),
        ({"env": [{"name": "A"}, {"name": "A"}]}, "spec.env[1]"),
        ({"podTemplate": {"hostNetwork": True}}, "hostNetwork"),
        ({"podTemplate": {"securityContext": {}}}, "securityContext"),
    ],
)
def test_a_type_out_of_bounds_is_refused_by_its_field(api: Api, spec: Object, where: str) -> None:
    body = {
        "apiVersion": "hybridjobs.dev/v1alpha1",
        "kind": "HybridJobType",
        "metadata": {"name": "bounds"},
        "spec": {"type": "bounds", **spec},
    }
    answer = api.send("create", body, "--dry-run=server")
    assert not answer.accepted
    assert where in answer.error


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"schedule": "@reboot"}, "spec.schedule"),
        ({"schedule": "0 0 * *"}, "spec.schedule"),
        ({"schedule": "0 0 * * * *"}, "spec.schedule"),
        ({"timeZone": "../UTC"}, "spec.timeZone"),
        ({"timeZone": ""}, "spec.timeZone"),
        ({"type": "Test/Sync"}, "spec.type"),
        ({"payload": [1]}, "spec.payload"),
        ({"concurrencyPolicy": "Queue"}, "spec.concurrencyPolicy"),
        ({"startingDeadlineSeconds": 0}, "spec.startingDeadlineSeconds"),
        ({"historyLimit": 101}, "spec.historyLimit"),
        ({"priority": -101}, "spec.priority"),
        ({"deadlineSeconds": 86_401}, "spec.deadlineSeconds"),
    ],
)
def test_a_schedule_out_of_bounds_is_refused_by_its_field(
    api: Api, spec: Object, where: str
) -> None:
    answer = api.send("create", hybridjobschedule("bounds", **spec), "--dry-run=server")
    assert not answer.accepted
    assert where in answer.error


@pytest.mark.parametrize("alias", ALIASES)
def test_a_schedule_may_be_an_alias(api: Api, alias: str) -> None:
    body = hybridjobschedule("alias", schedule=alias)
    answer = api.send("create", body, "--dry-run=server")
    assert answer.accepted, answer.error


def test_a_schedule_gets_its_defaults(api: Api) -> None:
    body = api.ours(hybridjobschedule("bare", type="bare"))
    made = yaml.safe_load(
        api.must("create", "-f", "-", "--dry-run=server", "-o", "yaml", stdin=body)
    )
    assert made["spec"] == {
        "schedule": "@daily",
        "timeZone": "UTC",
        "type": "bare",
        "payload": {},
        "suspend": False,
        "concurrencyPolicy": "Allow",
        "historyLimit": 10,
    }


def test_a_type_gets_its_defaults(api: Api) -> None:
    body = {
        "apiVersion": "hybridjobs.dev/v1alpha1",
        "kind": "HybridJobType",
        "metadata": {"name": "bare"},
        "spec": {"type": "bare"},
    }
    made = yaml.safe_load(
        api.must("create", "-f", "-", "--dry-run=server", "-o", "yaml", stdin=api.ours(body))
    )
    assert made["spec"] == {
        "type": "bare",
        "mode": "long",
        "deadlineSeconds": 900,
        "startDeadlineSeconds": 300,
        "gracePeriodSeconds": 30,
        "priority": 0,
        "payload": "env",
        "retry": {
            "limit": 3,
            "baseSeconds": 30,
            "factor": 2,
            "maxSeconds": 600,
            "permanentExitCodes": [65],
            "onDeadline": "Fail",
            "onOOM": "Fail",
            "overlap": "Allow",
        },
    }
