"""The HybridJobTypes that a release brings."""

from typing import Any

import pytest
import yaml

from hybridjobs.model import JobType, type_slug
from tests.unit.chart.helm import (
    HelmError,
    Object,
    environment,
    named,
    pod_templates,
    render,
)

GITHUB = {
    "capture/issue.comments",
    "capture/pr.comments",
    "capture/pr.details",
    "capture/pr.reviews",
    "capture/repository.issues",
    "capture/repository.sync",
}


def _types(objects: list[Object]) -> dict[str, Object]:
    data = named(objects, "ConfigMap", "hybridjobs-types").get("data") or {}
    bodies = {name: yaml.safe_load(text) for name, text in data.items()}
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


def test_a_pull_request_is_quick_and_a_repository_is_long() -> None:
    types = {name: _parse(body).spec for name, body in _types(render()).items()}
    details, sync = types["capture/pr.details"], types["capture/repository.sync"]
    assert (details.mode, details.deadline_seconds) == ("quick", 900)
    assert details.budget_seconds < 8  # GitHub gives up after 10
    assert (sync.mode, sync.deadline_seconds) == ("long", 3600)
    for spec in (details, sync):
        assert spec.database
        assert spec.concurrency is not None
        assert (spec.concurrency.limit, spec.concurrency.key) == (5, "repository.full_name")
    events = {"opened", "synchronize", "edited", "closed", "reopened"}
    assert {f"github/pull_request.{action}" for action in events} <= set(details.events)
    assert not any(event.startswith("github/push") for event in sync.events)


def test_what_a_sync_submits_is_a_type_with_its_limits() -> None:
    types = {name: _parse(body).spec for name, body in _types(render()).items()}
    for name in GITHUB - {"capture/pr.details", "capture/repository.sync"}:
        spec = types[name]
        assert (spec.mode, spec.database) == ("long", True)
        assert spec.deadline_seconds == (3600 if name == "capture/repository.issues" else 900)
        assert spec.concurrency is not None
        assert (spec.concurrency.limit, spec.concurrency.key) == (5, "repositoryId")


def test_children_and_pods_of_a_handler_see_the_same_github() -> None:
    release = render({"github": {"apiUrl": "http://recorded-github", "existingSecret": "gh"}})
    child = environment(pod_templates(release)["Deployment/hybridjobs-ingress"], "ingress")
    for body in _types(release).values():
        for variable in body["spec"]["env"]:
            value = variable.get("value", variable.get("valueFrom"))
            assert child[f"HYBRIDJOBS_CHILD_ENV_{variable['name']}"] == value


def test_more_types_can_be_given() -> None:
    spec = {"image": "registry.example/report:1", "args": ["--all"], "retry": {"limit": 0}}
    types = _types(render({"types": {"extra": {"report/nightly": spec}}}))
    assert set(types) == {*GITHUB, "report/nightly"}
    body = types["report/nightly"]
    assert body["metadata"]["name"] == "report-nightly"
    assert body["spec"] == {"type": "report/nightly", **spec}


def test_no_types_at_all_leave_an_empty_folder() -> None:
    assert _types(render({"types": {"github": {"enabled": False}}})) == {}


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
