"""Kueue holds a type's Jobs back, and takes pods away again."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e.gate import Gate
from tests.e2e.kueue import QUEUE, Kueue, installed
from tests.e2e.release import Access, Release, eventually

pytestmark = pytest.mark.timeout(240)

_NO_ROOM = (
    f"LocalQueue {QUEUE}: couldn't assign flavors to pod set main: "
    "insufficient unused quota for cpu in flavor hybridjobs-e2e, 10m more needed"
)
_NOBODY_ANSWERS = (
    "the Kubernetes API answers 500 InternalError: Internal error occurred: failed calling webhook"
)
_START_DEADLINE = timedelta(seconds=15)


@pytest.fixture(scope="module")
def kueue(release: Release) -> Iterator[Kueue]:
    if release.cluster.kind == "named":
        pytest.skip("Kueue is installed into clusters of our own alone")
    with installed(release) as kueue:
        yield kueue


async def _job(release: Release, job_id: str, attempt: int) -> dict[str, Any]:
    """The Job of an attempt, once it is there."""

    async def look() -> dict[str, Any] | None:
        found = release.objects("jobs", f"hybridjobs.dev/job-id={job_id}")
        return {each["metadata"]["name"]: each for each in found}.get(f"hj-{job_id}-{attempt}")

    return await eventually(look, seconds=60, what=f"Job {attempt} of {job_id}")


async def _shown(release: Release, access: Access, job_id: str, message: str) -> dict[str, Any]:
    """The HybridJob's status, once its message begins like that."""

    async def look() -> dict[str, Any] | None:
        name = (await access.job(job_id))["resourceName"]
        status = {} if name is None else release.object("hybridjob", name).get("status") or {}
        return status if (status.get("message") or "").startswith(message) else None

    return await eventually(look, seconds=60, what=f"{message!r} to be shown")


async def test_a_job_of_a_queue_waits_for_room_and_its_clocks_with_it(
    release: Release, access: Access, kueue: Kueue, gate: Gate
) -> None:
    before = await access.submit("test/queued", gate.payload, deadlineSeconds=300)
    status = await _shown(release, access, before, f"LocalQueue {QUEUE}: LocalQueue {QUEUE} doesn")
    assert (status["state"], status["reason"]) == ("queued", "Suspended")
    kueue.make_queue()
    await access.until(before, "processing")
    job_id = await access.submit("test/queued", {"sleep": 1})
    status = await _shown(release, access, job_id, _NO_ROOM)
    assert (status["state"], status["reason"]) == ("queued", "Suspended")
    job = await _job(release, job_id, 1)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == QUEUE
    assert job["spec"]["suspend"] is True
    created = datetime.fromisoformat(job["metadata"]["creationTimestamp"])

    async def held_for_long() -> bool | None:
        over = datetime.now(UTC) - created - _START_DEADLINE
        return True if over > timedelta(seconds=2) else None

    await eventually(held_for_long, seconds=30, what="the start deadline to pass")
    assert (await access.job(job_id))["status"] == "queued"
    gate.open()
    assert (await access.until(before))["status"] == "completed"
    ended = await access.until(job_id)
    assert ended["status"] == "completed", ended
    [attempt] = ended["attempts"]
    assert attempt["outcome"] == "succeeded"
    job = await _job(release, job_id, 1)
    assert datetime.fromisoformat(job["status"]["startTime"]) - created > _START_DEADLINE
    assert job["spec"]["template"]["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux"}


async def test_a_preempted_job_is_queued_again_and_spends_no_retry(
    release: Release, access: Access, kueue: Kueue, gate: Gate
) -> None:
    payload = {"sleep": 300, "sleepUntilAttempt": 1}
    job_id = await access.submit("test/queued", payload, deadlineSeconds=300)
    await access.until(job_id, "processing")
    urgent = await access.submit("test/urgent", gate.payload, deadlineSeconds=300)
    second = await _job(release, job_id, 2)
    assert second["spec"]["suspend"] is True
    waiting = await access.job(job_id)
    assert (waiting["status"], waiting["retryCount"]) == ("queued", 0)
    gate.open()
    assert (await access.until(urgent))["status"] == "completed"
    ended = await access.until(job_id)
    assert (ended["status"], ended["retryCount"]) == ("completed", 0), ended
    preempted, completed = ended["attempts"]
    assert (preempted["outcome"], preempted["reason"]) == ("disrupted", "Preempted")
    assert preempted["message"].startswith("Preempted to accommodate a workload (UID: ")
    assert completed["outcome"] == "succeeded"
    names = [each["metadata"]["name"] for each in release.objects("jobs")]
    assert f"hj-{job_id}-1" not in names
    described = release.kubectl("describe", "hybridjob", ended["resourceName"])
    assert "attempt 1 ended as disrupted: Preempted to accommodate" in described


async def test_a_queue_that_is_drained_takes_its_jobs_away_and_runs_them_later(
    release: Release, access: Access, kueue: Kueue
) -> None:
    payload = {"sleep": 300, "sleepUntilAttempt": 1}
    job_id = await access.submit("test/queued", payload, deadlineSeconds=300)
    await access.until(job_id, "processing")
    kueue.stop_queue("HoldAndDrain")
    await _shown(release, access, job_id, f"LocalQueue {QUEUE}: ClusterQueue hybridjobs-e2e is ")
    kueue.stop_queue("None")
    ended = await access.until(job_id)
    assert (ended["status"], ended["retryCount"]) == ("completed", 0), ended
    assert [(each["outcome"], each["reason"]) for each in ended["attempts"]] == [
        ("disrupted", "ClusterQueueStopped"),
        ("succeeded", "Completed"),
    ]


async def test_a_job_may_be_cancelled_while_kueue_holds_it(
    release: Release, access: Access, kueue: Kueue
) -> None:
    kueue.stop_queue("Hold")
    job_id = await access.submit("test/queued")
    await _job(release, job_id, 1)
    await access.request("POST", f"/api/jobs/{job_id}/cancel")
    assert (await access.until(job_id))["status"] == "cancelled"

    async def gone() -> bool | None:
        selector = f"hybridjobs.dev/job-id={job_id}"
        left = release.objects("jobs", selector) + kueue.workloads_of(job_id)
        return None if left else True

    await eventually(gone, seconds=30, what="its Job and Workload to go")
    kueue.stop_queue("None")


async def test_jobs_wait_while_kueue_is_away_and_its_webhook_is_asked(
    release: Release, access: Access, kueue: Kueue
) -> None:
    kueue.stop()
    held = await access.submit("test/queued")
    other = await access.submit("test/script")
    for job_id in (held, other):
        status = await _shown(release, access, job_id, _NOBODY_ANSWERS)
        assert (status["state"], status["reason"]) == ("queued", "WebhookUnavailable")
    kueue.start()
    for job_id in (held, other):
        ended = await access.until(job_id)
        assert (ended["status"], len(ended["attempts"])) == ("completed", 1)
