"""The HybridJobTypes and HybridJobSchedules that a release brings."""

from datetime import timedelta
from itertools import islice, pairwise
from typing import Any

import pytest
import yaml

from hybridjobs.model import JobType, type_slug
from hybridjobs.schedules.ticks import Schedule
from hybridjobs.worker import registry
from tests.unit.chart.helm import (
    HelmError,
    Object,
    environment,
    named,
    pod_templates,
    render,
)

KEY = "repository.full_name | owner/repo | repositoryId"
MINUTES = {
    "capture/issue.comments": 15,
    "capture/pr.comments": 15,
    "capture/pr.details": 15,
    "capture/pr.details.graphql": 15,
    "capture/pr.reviews": 15,
    "capture/repository.issues": 60,
    "capture/repository.sync": 60,
    "capture/repository.sync.graphql": 60,
    "classify/repository.single": 15,
    "classify/repository.size": 15,
    "discover/repository.new": 15,
}


def _files(objects: list[Object]) -> dict[str, Object]:
    data = named(objects, "ConfigMap", "hybridjobs-types").get("data") or {}
    return {name: yaml.safe_load(text) for name, text in data.items()}


def _types(objects: list[Object]) -> dict[str, Object]:
    bodies = {
        name: body for name, body in _files(objects).items() if body["kind"] == "HybridJobType"
    }
    assert all(name == f"{body['metadata']['name']}.yaml" for name, body in bodies.items())
    return {body["spec"]["type"]: body for body in bodies.values()}


def _parse(body: Object) -> JobType:
    return JobType.parse(name=body["metadata"]["name"], uid="uid", generation=1, spec=body["spec"])


def test_the_github_types_are_named_and_labelled_for_the_operator() -> None:
    release = render(release="ci")
    data = named(release, "ConfigMap", "ci-hybridjobs-types")["data"]
    bodies = [yaml.safe_load(text) for text in data.values()]
    given = environment(pod_templates(release)["Deployment/ci-hybridjobs-operator"], "operator")
    selector = dict(each.split("=") for each in given["HYBRIDJOBS_TYPES_SELECTOR"].split(","))
    for body in bodies:
        if body["kind"] == "HybridJobType":
            assert body["metadata"]["name"] == type_slug(body["spec"]["type"])
        assert selector.items() <= body["metadata"]["labels"].items()
    # What the dispatcher and the operator make has another manager, so a selector tells them apart.
    assert selector["app.kubernetes.io/managed-by"] != "hybridjobs"
    assert selector["app.kubernetes.io/instance"] == "ci"


def test_the_types_stand_where_the_operator_looks() -> None:
    release = render()
    template = pod_templates(release)["Deployment/hybridjobs-operator"]
    (container,) = template["spec"]["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    folder = environment(template, "operator")["HYBRIDJOBS_TYPES_DIR"]
    assert volumes[mounts[folder]]["configMap"]["name"] == "hybridjobs-types"


def test_every_handler_has_a_type_with_the_same_limits() -> None:
    types = {name: _parse(body).spec for name, body in _types(render()).items()}
    assert {name: spec.deadline_seconds / 60 for name, spec in types.items()} == MINUTES
    assert set(registry.names()) == set(MINUTES)
    for name, spec in types.items():
        assert spec.mode == ("quick" if name == "capture/pr.details" else "long")
        assert (spec.database, spec.retry.limit) == (True, 3)
        assert spec.concurrency is not None
        assert (spec.concurrency.limit, spec.key_path) == (5, KEY)
        assert spec.resources == {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"memory": "512Mi"},
        }


def test_events_go_to_who_knows_what_to_do() -> None:
    types = {name: _parse(body).spec for name, body in _types(render()).items()}
    assert types["capture/pr.details"].budget_seconds < 8  # GitHub gives up after 10
    actions = {"opened", "synchronize", "edited", "closed", "reopened"}
    events = {f"github/pull_request.{action}" for action in actions}
    assert events <= set(types["capture/pr.details"].events)
    taken = [event for spec in types.values() for event in spec.events]
    assert len(taken) == len(set(taken))
    assert "github/repository.created" in types["discover/repository.new"].events
    assert "github/repository.renamed" in types["capture/repository.sync"].events
    assert not any(event.startswith("github/push") for event in taken)


def test_sizes_are_looked_at_every_six_hours() -> None:
    release = render({"jobs": {"namespace": "work"}})
    files = _files(release)
    [(name, body)] = [each for each in files.items() if each[1]["kind"] == "HybridJobSchedule"]
    assert name.startswith("schedule_")
    assert body["metadata"]["namespace"] == "work"
    body["metadata"] |= {"uid": "uid", "generation": 1, "creationTimestamp": "2026-11-24T00:00:00Z"}
    schedule = Schedule.parse(body)
    assert isinstance(schedule, Schedule), schedule
    assert schedule.spec.type in _types(release)
    ticks = list(islice(schedule.ticks(schedule.created_at), 5))
    assert [later - earlier for earlier, later in pairwise(ticks)] == [timedelta(hours=6)] * 4


def test_children_and_pods_of_a_handler_see_the_same_github() -> None:
    release = render({"github": {"apiUrl": "http://recorded-github", "existingSecret": "gh"}})
    child = environment(pod_templates(release)["Deployment/hybridjobs-ingress"], "ingress")
    for body in _types(release).values():
        given = {each["name"]: each.get("valueFrom") for each in body["spec"]["env"]}
        assert {
            name: value and (value["secretKeyRef"]["name"], value["secretKeyRef"]["key"])
            for name, value in given.items()
        } == {
            "GITHUB_API_URL": None,
            "GITHUB_TOKEN": ("gh", "token"),
            "GITHUB_APP_ID": ("gh", "appId"),
            "GITHUB_APP_PRIVATE_KEY": ("gh", "privateKey"),
        }
        for variable in body["spec"]["env"]:
            value = variable.get("value", variable.get("valueFrom"))
            assert child[f"HYBRIDJOBS_CHILD_ENV_{variable['name']}"] == value


def test_more_types_can_be_given() -> None:
    spec = {"image": "registry.example/report:1", "args": ["--all"], "retry": {"limit": 0}}
    types = _types(render({"types": {"extra": {"report/nightly": spec}}}))
    assert set(types) == {*MINUTES, "report/nightly"}
    body = types["report/nightly"]
    assert body["metadata"]["name"] == "report-nightly"
    assert body["spec"] == {"type": "report/nightly", **spec}


def test_no_types_at_all_leave_an_empty_folder() -> None:
    assert _files(render({"types": {"github": {"enabled": False}}})) == {}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"capture/pr.details": {}}, "types.github.enabled=false"),
        ({"Report": {}}, "invalid propertyName .Report"),
        ({"report": {"type": "other"}}, "types/extra/report"),
    ],
)
def test_a_type_that_cannot_be_is_refused(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(HelmError, match=message):
        render({"types": {"extra": extra}})


def test_types_of_the_jobs_namespace_and_a_change_restarts_the_operator() -> None:
    def checksum(values: dict[str, Any]) -> str:
        pods = pod_templates(render(values))
        annotations = pods["Deployment/hybridjobs-operator"]["metadata"]["annotations"]
        found: str = annotations["checksum/types"]
        return found

    work = {"jobs": {"namespace": "work"}}
    assert {body["metadata"]["namespace"] for body in _types(render(work)).values()} == {"work"}
    assert checksum({}) != checksum({"github": {"apiUrl": "http://other"}})
    assert checksum({}) == checksum({"log": {"level": "debug"}})
