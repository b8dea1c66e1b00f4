"""What a HybridJobType may ask for, judged by the API server."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.crds.api import Api, hybridjobtype

LIMITS = {
    "cpu": "2",
    "memory": "1Gi",
    "deadlineSeconds": 3600,
    "images": ["registry.example/jobs/", "hybridjobs:"],
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
    deadline = time.monotonic() + 60
    while api.send("create", hybridjobtype("test-probe"), "--dry-run=server").accepted:
        assert time.monotonic() < deadline, "the policy never took effect"
        time.sleep(0.5)
    yield api
    api.must("delete", "-f", "-", stdin=api.ours(policy))


def test_what_is_modest_is_taken(limited: Api) -> None:
    for name, more in {
        "test-modest": {},
        "test-largest": _limits(cpu=2, memory="1024Mi") | {"deadlineSeconds": 3600},
        "test-own-image": {"image": "registry.example/jobs/report:1"},
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
