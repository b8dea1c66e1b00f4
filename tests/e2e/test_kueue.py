"""Kueue holds a type's Jobs back, and takes pods away again.

No Kueue can be installed where these run. Its part is played on real Jobs as it plays it: it lets
a Job begin by `spec.suspend` (and may add to the template what its flavor asks for), takes the pod
away by the same, and says why in a Workload (kueue.sigs.k8s.io, "Run A Kubernetes Job",
"Preemption", "Troubleshooting Jobs"). Its webhook suspends Jobs at their creation; ours are.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e.release import Access, Release, eventually

pytestmark = pytest.mark.timeout(240)

_NO_ROOM = (
    "couldn't assign flavors to pod set main: "
    "insufficient unused quota for cpu in flavor default-flavor, 4 more needed"
)
_PREEMPTED = "Preempted to accommodate a workload (UID: 5c0234) due to prioritization"
_DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "workloads.kueue.x-k8s.io"},
    "spec": {
        "group": "kueue.x-k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "Workload", "plural": "workloads", "singular": "workload"},
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}


class _Kueue:
    """Its part, by hand."""

    def __init__(self, release: Release) -> None:
        self._release = release

    async def job(self, job_id: str, attempt: int) -> dict[str, Any]:
        """The Job of an attempt, once it is there."""

        async def look() -> dict[str, Any] | None:
            found = self._release.objects("jobs", f"hybridjobs.dev/job-id={job_id}")
            names = {each["metadata"]["name"]: each for each in found}
            return names.get(f"hj-{job_id}-{attempt}")

        return await eventually(look, seconds=30, what=f"Job {attempt} of {job_id}")

    def say(self, job: dict[str, Any], **conditions: tuple[str, str, str]) -> None:
        """Write the Job's Workload: each condition's status, reason and message."""
        metadata = job["metadata"]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._release.apply(
            {
                "apiVersion": "kueue.x-k8s.io/v1beta1",
                "kind": "Workload",
                "metadata": {
                    "name": f"job-{metadata['name']}-4f1d2",
                    "labels": {"kueue.x-k8s.io/job-uid": metadata["uid"]},
                    "ownerReferences": [
                        {
                            "apiVersion": "batch/v1",
                            "kind": "Job",
                            "name": metadata["name"],
                            "uid": metadata["uid"],
                        }
                    ],
                },
                "spec": {"queueName": "team-a", "active": True},
                "status": {
                    "conditions": [
                        {
                            "type": type_,
                            "status": status,
                            "reason": reason,
                            "message": message,
                            "lastTransitionTime": now,
                        }
                        for type_, (status, reason, message) in conditions.items()
                    ]
                },
            }
        )

    def admit(self, job: dict[str, Any]) -> None:
        """Let it begin, on nodes of its flavor."""
        flavor = {"spec": {"nodeSelector": {"kubernetes.io/os": "linux"}}}
        self._patch(job, {"spec": {"suspend": False, "template": flavor}})
        self.say(
            job, QuotaReserved=("True", "QuotaReserved", ""), Admitted=("True", "Admitted", "")
        )

    def preempt(self, job: dict[str, Any]) -> None:
        """Take its pod away, for another Job."""
        self.say(
            job,
            QuotaReserved=("False", "Pending", _PREEMPTED),
            Evicted=("True", "Preempted", _PREEMPTED),
        )
        self._patch(job, {"spec": {"suspend": True}})

    def _patch(self, job: dict[str, Any], body: dict[str, Any]) -> None:
        name = job["metadata"]["name"]
        self._release.kubectl("patch", "job", name, "--type=merge", "-p", json.dumps(body))


@pytest.fixture(scope="module")
def kueue(release: Release) -> Iterator[_Kueue]:
    release.apply(_DEFINITION)
    release.kubectl(
        "wait", "crd/workloads.kueue.x-k8s.io", "--for=condition=Established", scoped=False
    )
    yield _Kueue(release)
    release.kubectl("delete", "crd", "workloads.kueue.x-k8s.io", scoped=False)


async def _shown(release: Release, access: Access, job_id: str, message: str) -> dict[str, Any]:
    """The HybridJob's status, once its message ends like that."""

    async def look() -> dict[str, Any] | None:
        name = (await access.job(job_id))["resourceName"]
        status: dict[str, Any] = {} if name is None else release.object("hybridjob", name)["status"]
        return status if (status.get("message") or "").endswith(message) else None

    return await eventually(look, seconds=60, what=f"{message!r} to be shown")


async def test_a_job_of_a_queue_waits_for_kueue_and_its_clocks_with_it(
    release: Release, access: Access, kueue: _Kueue
) -> None:
    job_id = await access.submit("test/queued", {"sleep": 1})
    job = await kueue.job(job_id, 1)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert job["spec"]["suspend"] is True
    kueue.say(job, QuotaReserved=("False", "Pending", _NO_ROOM))
    status = await _shown(release, access, job_id, _NO_ROOM)
    assert (status["state"], status["reason"]) == ("queued", "Suspended")
    assert status["message"] == f"LocalQueue team-a: {_NO_ROOM}"
    created = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
    start_deadline = timedelta(seconds=15)

    async def held_for_long() -> bool | None:
        over = datetime.now(UTC) - created - start_deadline
        return True if over > timedelta(seconds=2) else None

    await eventually(held_for_long, seconds=30, what="the start deadline to pass")
    assert (await access.job(job_id))["status"] == "queued"
    kueue.admit(job)
    ended = await access.until(job_id)
    assert ended["status"] == "completed", ended
    [attempt] = ended["attempts"]
    assert attempt["outcome"] == "succeeded"
    started = (await kueue.job(job_id, 1))["status"]["startTime"]
    assert datetime.fromisoformat(started) - created > start_deadline


async def test_a_preempted_job_is_queued_again_and_spends_no_retry(
    release: Release, access: Access, kueue: _Kueue
) -> None:
    job_id = await access.submit("test/queued", {"sleep": 300, "sleepUntilAttempt": 1})
    first = await kueue.job(job_id, 1)
    kueue.admit(first)
    await access.until(job_id, "processing")
    kueue.preempt(first)
    second = await kueue.job(job_id, 2)
    assert second["spec"]["suspend"] is True
    waiting = await access.job(job_id)
    assert (waiting["status"], waiting["retryCount"]) == ("queued", 0)
    kueue.admit(second)
    ended = await access.until(job_id)
    assert (ended["status"], ended["retryCount"]) == ("completed", 0), ended
    preempted, completed = ended["attempts"]
    assert (preempted["outcome"], preempted["reason"], preempted["message"]) == (
        "disrupted",
        "Preempted",
        _PREEMPTED,
    )
    assert completed["outcome"] == "succeeded"
    names = [each["metadata"]["name"] for each in release.objects("jobs")]
    assert f"hj-{job_id}-1" not in names
    described = release.kubectl("describe", "hybridjob", ended["resourceName"])
    assert "attempt 1 ended as disrupted: Preempted to accommodate" in described


async def test_a_job_may_be_cancelled_while_kueue_holds_it(
    release: Release, access: Access, kueue: _Kueue
) -> None:
    job_id = await access.submit("test/queued")
    await kueue.job(job_id, 1)
    await access.request("POST", f"/api/jobs/{job_id}/cancel")
    assert (await access.until(job_id))["status"] == "cancelled"

    async def gone() -> bool | None:
        return None if release.objects("jobs", f"hybridjobs.dev/job-id={job_id}") else True

    await eventually(gone, seconds=30, what="its Job to go")
