"""Who keeps a Job without a pod: what Kueue says in Workloads, and what is made of its silence."""

from typing import Any, cast

import pytest

from hybridjobs.controller.holds import Holds
from hybridjobs.errors import ClusterUnavailable
from hybridjobs.kube.client import ApiError, Forbidden, Kubernetes, NotFound, Resource
from tests.unit.controller.objects import job


class _Api:
    """Answers lists as a cluster with a Kueue of that version would."""

    def __init__(self, *workloads: dict[str, Any], version: str = "v1beta2") -> None:
        self.workloads = list(workloads)
        self.version = version
        self.refusal: Exception | None = None
        self.lists = 0

    async def list(self, resource: Resource, _: str, **_selectors: str) -> list[dict[str, Any]]:
        self.lists += 1
        if self.refusal is not None:
            raise self.refusal
        if resource.version != self.version:
            raise NotFound(404, "NotFound", "the server could not find the requested resource")
        return self.workloads


def _workload(uid: str, **conditions: tuple[str, str]) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"kueue.x-k8s.io/job-uid": uid}},
        "status": {
            "conditions": [
                {"type": type_, "status": status, "reason": "R", "message": message}
                for type_, (status, message) in conditions.items()
            ]
        },
    }


def _held(uid: str = "job-1", queue: str | None = "team-a") -> dict[str, Any]:
    held = job(uid=uid, suspend=True)
    held["metadata"]["labels"] = {} if queue is None else {"kueue.x-k8s.io/queue-name": queue}
    return held


def _holds(api: _Api) -> Holds:
    return Holds(cast("Kubernetes", api), namespace="jobs")


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        (_workload("job-1", QuotaReserved=("False", "no quota")), "no quota"),
        (
            _workload("job-1", QuotaReserved=("True", ""), Admitted=("False", "not provisioned")),
            "not provisioned",
        ),
        (_workload("job-1", QuotaReserved=("True", "")), "waits for admission checks"),
        (_workload("job-1", Admitted=("True", "")), "admitted, and about to begin"),
        (_workload("job-1"), "not admitted yet"),
        (_workload("job-2"), "Kueue has not taken it up; is it installed here?"),
    ],
)
@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
async def test_kueue_s_reason_is_shown(workload: dict[str, Any], said: str, version: str) -> None:
    told = await _holds(_Api(workload, version=version)).told(_held(), None, begun=False)
    assert told == ("Suspended", f"LocalQueue team-a: {said}")


async def test_a_cluster_without_kueue_is_asked_about() -> None:
    told = await _holds(_Api(version="none")).told(_held(), None, begun=False)
    assert told == (
        "Suspended",
        "LocalQueue team-a: Kueue has not taken it up; is it installed here?",
    )


async def test_many_that_wait_share_one_list() -> None:
    api = _Api(*(_workload(f"job-{n}", QuotaReserved=("False", f"{n}")) for n in range(100)))
    holds = _holds(api)
    for n in range(100):
        told = await holds.told(_held(f"job-{n}"), None, begun=False)
        assert told == ("Suspended", f"LocalQueue team-a: {n}")
    assert api.lists == 1


@pytest.mark.parametrize(
    "refusal",
    [
        Forbidden(403, "Forbidden", "no right"),
        ApiError(429, "TooManyRequests", "storage is (re)initializing"),
        ClusterUnavailable("500: its conversion webhook does not answer"),
    ],
)
async def test_reasons_that_cannot_be_read_hinder_nothing(refusal: Exception) -> None:
    api = _Api()
    api.refusal = refusal
    holds = _holds(api)
    told = await holds.told(_held(), None, begun=False)
    assert told == ("Suspended", "LocalQueue team-a: not admitted yet")
    assert await holds.told(_held(), None, begun=True) is None
    assert await holds.told(job(), None, begun=False) is None


async def test_what_was_taken_away_has_the_reason_of_its_eviction() -> None:
    evicted = _workload("job-1", Evicted=("True", "by another"), QuotaReserved=("False", "none"))
    assert await _holds(_Api(evicted)).told(_held(), None, begun=True) == ("R", "by another")
    admitted = _workload("job-1", Evicted=("False", "earlier"))
    assert await _holds(_Api(admitted)).told(_held(), None, begun=True) is None


async def test_nobody_is_asked_about_a_job_that_a_person_suspends() -> None:
    api = _Api()
    assert await _holds(api).told(_held(queue=None), None, begun=False) is None
    assert api.lists == 0
