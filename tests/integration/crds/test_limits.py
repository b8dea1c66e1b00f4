"""What a HybridJobType may ask for, judged by the API server."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.crds.api import Api, hybridjobtype
from tests.waiting import until

LIMITS = {
    "cpu": "2",
    "memory": "1Gi",
    "deadlineSeconds": 3600,
    "images": ["registry.example/jobs/", "hybridjobs:"],
    "serviceAccounts": ["hybridjobs-worker", "reports"],
}


def _limits(**limits: Any) -> dict[str, Any]:
    return {"resources": {"limits": limits}}


MODEST = _limits(cpu="500m", memory="512Mi") | {"deadlineSeconds": 60}


@pytest.fixture(scope="module")
def limited(api: Api) -> Iterator[Api]:
    """The namespace with the policy; made when it works, which takes a moment."""
    policy = [
        each
        for each in api.release({"jobs": {"limits": LIMITS}})
        if each["kind"].startswith("Validating") and each["metadata"]["name"].endswith(".types")
    ]
    assert len(policy) == 2
    api.must("apply", "-f", "-", stdin=api.ours(policy))
    probe = hybridjobtype("test-probe")
    until(lambda: not api.send("create", probe, "--dry-run=server").accepted)
    yield api
    api.must("delete", "-f", "-", stdin=api.ours(policy))


def test_what_is_modest_is_taken(limited: Api) -> None:
    for name, more in {
        "test-modest": {},
        "test-largest": _limits(cpu=2, memory="1024Mi") | {"deadlineSeconds": 3600},
        "test-own-image": {"image": "registry.example/jobs/report:1"},
        "test-account": {"podTemplate": {"serviceAccountName": "reports"}},
        "test-no-account": {"podTemplate": {"nodeSelector": {"disk": "ssd"}}},
    }.items():
        body = hybridjobtype(name, **(MODEST | more))
        answer = limited.send("create", body, "--dry-run=server")
        assert answer.accepted, answer.error


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            {"resources": {"limits": {"cpu": "2001m", "memory": "1Gi"}}},
            "limits.cpu must be set, to 2",
        ),
        (
            {"resources": {"limits": {"cpu": "1", "memory": "2G"}}},
            "limits.memory must be set, to 1Gi",
        ),
        ({"resources": {"limits": {"cpu": "1"}}}, "limits.memory must be set"),
        ({"resources": {"requests": {"cpu": "1"}}}, "limits.cpu must be set"),
        ({"deadlineSeconds": 3601}, "deadlineSeconds may be 3600 at most"),
        (
            {"image": "elsewhere.example/jobs/x"},
            "image must begin with one of registry.example/jobs/",
        ),
        (
            {"podTemplate": {"serviceAccountName": "default"}},
            "serviceAccountName must be one of hybridjobs-worker, reports",
        ),
    ],
)
def test_what_asks_for_more_is_refused(limited: Api, asked: dict[str, Any], says: str) -> None:
    body = hybridjobtype("test-greedy", **(MODEST | asked))
    answer = limited.send("create", body, "--dry-run=server")
    assert not answer.accepted
    assert says in answer.error


def test_what_the_release_ships_is_its_own_business(limited: Api) -> None:
    body = hybridjobtype("test-shipped", image="elsewhere.example/x")
    as_operator = (f"--as={limited.account('operator')}", "--dry-run=server")
    answer = limited.send("create", body, *as_operator)
    assert answer.accepted, answer.error


@pytest.mark.parametrize(
    "asked",
    [
        {"privileged": True},
        {"securityContext": {"privileged": True}},
        {"securityContext": {"runAsUser": 0}},
        {"hostNetwork": True},
        {"hostPID": True},
        {"automountServiceAccountToken": True},
        {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]},
        {"containers": [{"name": "own", "securityContext": {"privileged": True}}]},
        {"initContainers": [{"name": "own", "image": "x"}]},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_there_is_no_field_for_more_rights(api: Api, asked: dict[str, Any]) -> None:
    [field] = asked
    for spec in ({"podTemplate": asked}, asked):
        body = hybridjobtype("test-rights", **(MODEST | spec))
        answer = api.send("create", body, "--dry-run=server")
        assert not answer.accepted
        assert "unknown field" in answer.error
        assert f'"{field}"' in answer.error or f'.{field}"' in answer.error
        # Who does not ask for a check has it left out.
        answer = api.send("create", body, "--dry-run=server", "--validate=false", "-o", "json")
        assert answer.accepted, answer.error
        assert f'"{field}"' not in answer.out
