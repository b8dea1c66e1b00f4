"""Whatever is killed, every accepted job ends, recorded once."""

import json
from typing import Any

import pytest

from tests.e2e.conftest import PYTHON
from tests.e2e.gate import Gate
from tests.e2e.processes import pids_of
from tests.e2e.release import Access, Release, delivery_of, eventually, unique_key

pytestmark = pytest.mark.timeout(300)


async def _running(access: Access, **payload: object) -> str:
    """A job whose process has said that it runs."""
    job_id = await access.submit("test/script", payload)
    await access.until(job_id, "processing")

    async def look() -> bool | None:
        answer = await access.request("GET", f"/api/jobs/{job_id}/logs")
        return True if "begun attempt 1" in answer.text else None

    await eventually(look, seconds=60, what=f"job {job_id} to write its log")
    return job_id


async def _ended(pods: list[dict[str, Any]], program: str) -> None:
    """Wait until their processes are gone, as far as they are on this machine."""

    async def look() -> bool | None:
        return None if any(pids_of(pod, program) for pod in pods) else True

    await eventually(look, seconds=60, what=f"the processes of {program} to end")


async def test_deleting_a_running_hybridjob_cancels_its_job(
    release: Release, access: Access
) -> None:
    job_id = await _running(access, sleep=50)
    release.kubectl("delete", "hybridjob", (await access.job(job_id))["resourceName"])
    job = await access.until(job_id)
    assert (job["status"], job["outcomeReason"]) == ("cancelled", "HybridJobDeleted")

    async def gone() -> bool | None:
        selector = f"hybridjobs.dev/job-id={job_id}"
        return True if not release.objects("jobs,pods", selector) else None

    await eventually(gone, seconds=60, what="its Job and pod to go")


async def test_a_cancel_ends_the_pod_and_keeps_its_log(release: Release, access: Access) -> None:
    job_id = await _running(access, sleep=50)
    name = (await access.job(job_id))["resourceName"]
    release.kubectl("patch", "hybridjob", name, "--type=merge", "-p", '{"spec":{"cancel":true}}')
    job = await access.until(job_id)
    assert job["status"] == "cancelled"
    assert "begun attempt 1" in job["attempts"][0]["logTail"]


async def test_a_late_report_of_a_closed_attempt_changes_nothing(
    access: Access, gate: Gate
) -> None:
    job_id = await access.submit("test/late", gate.payload)
    await access.until(job_id, "processing")
    await access.sql(
        "WITH ended AS (UPDATE hybridjobs.job_attempts SET ended_at = now(), outcome = 'node_lost',"
        " reason = 'ByTest' WHERE job_id = %s RETURNING job_id)"
        "UPDATE hybridjobs.background_jobs SET status = 'failed', failed_at = now(), "
        "outcome_reason = 'ByTest' WHERE id = (SELECT job_id FROM ended)",
        job_id,
    )
    gate.open()

    async def log() -> str | None:
        tail: str | None = (await access.job(job_id))["attempts"][0]["logTail"]
        return tail

    assert "answered 409" in await eventually(log, seconds=90, what="the log of the late worker")
    job = await access.job(job_id)
    assert (job["status"], job["outcomeReason"], job["result"]) == ("failed", "ByTest", None)
    assert job["attempts"][0]["outcome"] == "node_lost"


async def test_an_outcome_is_recorded_once_after_the_operator_was_away(
    release: Release, access: Access, gate: Gate
) -> None:
    job_id = await _running(access, **gate.payload, message='{"answer": 42}')
    operators = release.objects("pods", "app.kubernetes.io/component=operator")
    release.delete_pods("operator")
    release.scale("operator", 0)
    await _ended(operators, "operator")
    gate.open()
    release.kubectl("wait", f"job/hj-{job_id}-1", "--for=condition=Complete", "--timeout=60s")
    assert (await access.job(job_id))["status"] == "processing"
    release.scale("operator", 2)
    job = await access.until(job_id)
    assert (job["status"], job["result"]) == ("completed", {"answer": 42})
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["succeeded"]


async def test_a_job_runs_although_the_ingress_died_after_its_202(
    release: Release, access: Access
) -> None:
    job_id = await access.submit("test/script", {"message": '"done"'})
    release.delete_pods("ingress")
    release.ready("ingress")
    async with release.access() as again:
        job = await again.until(job_id)
    assert (job["status"], job["result"]) == ("completed", "done")


async def test_a_drained_pod_is_retried_without_spending_a_retry(
    release: Release, access: Access
) -> None:
    job_id = await _running(access, sleep=50, sleepUntilAttempt=1)
    [pod] = release.objects("pods", f"hybridjobs.dev/job-id={job_id}")
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod["metadata"]["name"], "namespace": release.namespace},
    }
    path = f"/api/v1/namespaces/{release.namespace}/pods/{pod['metadata']['name']}/eviction"
    release.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    job = await access.until(job_id)
    assert (job["status"], job["retryCount"]) == ("completed", 0)
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["disrupted", "succeeded"]
    assert "begun attempt 1" in job["attempts"][0]["logTail"]


async def test_a_job_deleted_by_hand_is_run_again(release: Release, access: Access) -> None:
    job_id = await _running(access, sleep=50, sleepUntilAttempt=1)
    release.kubectl("delete", "job", f"hj-{job_id}-1")
    job = await access.until(job_id)
    assert (job["status"], job["retryCount"]) == ("completed", 0)
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["lost", "succeeded"]


async def test_webhooks_are_answered_while_the_api_server_is_away(
    release: Release, access: Access
) -> None:
    if not release.cluster.can_stop_api_server:
        pytest.skip("this cluster's API server is not ours to stop")
    release.cluster.stop_api_server()
    try:
        answers = [
            await access.deliver(delivery_of("repository", action), delivery_id=unique_key())
            for action in ("created", "transferred")
        ]
        assert [answer.status_code for answer in answers] == [202, 202]
        job_id = await access.submit("test/script", {"message": '"later"'})
    finally:
        release.cluster.start_api_server()
    job = await access.until(job_id, seconds=150)
    assert (job["status"], job["result"]) == ("completed", "later")


async def test_the_database_may_die_and_nothing_is_lost(
    release: Release, access: Access, gate: Gate
) -> None:
    job_id = await _running(access, **gate.payload, message='"survived"')
    release.kubectl("delete", "pod", "hybridjobs-postgres-0", "--grace-period=0", "--force")
    gate.open()
    release.kubectl("rollout", "status", "statefulset/hybridjobs-postgres", "--timeout=120s")
    job = await access.until(job_id)
    assert (job["status"], job["result"]) == ("completed", "survived")
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["succeeded"]


async def test_jobs_go_on_while_the_kubelet_is_away(
    release: Release, access: Access, gate: Gate
) -> None:
    await _go_on_without(release, access, gate, "kubelet")


async def test_jobs_go_on_while_containerd_is_away(
    release: Release, access: Access, gate: Gate
) -> None:
    await _go_on_without(release, access, gate, "containerd")


async def _go_on_without(release: Release, access: Access, gate: Gate, program: str) -> None:
    """One runs meanwhile, and one is accepted: each is completed by its only attempt."""
    if release.cluster.kind != "native":
        pytest.skip("this cluster's programs are not ours to kill")
    running = await _running(access, **gate.payload, message='"went on"')
    [pod] = release.objects("pods", f"hybridjobs.dev/job-id={running}")
    assert pids_of(pod, PYTHON)
    release.cluster.stop_component(program)
    try:
        accepted = await access.submit("test/script", {"message": '"came later"'})

        async def has_a_job() -> bool | None:
            selector = f"hybridjobs.dev/job-id={accepted}"
            return True if release.objects("jobs", selector) else None

        await eventually(has_a_job, seconds=60, what="its Kubernetes Job")
        gate.open()
        await _ended([pod], PYTHON)  # and nobody is there to see it
        assert (await access.job(running))["status"] == "processing"
    finally:
        release.cluster.start_component(program)
    for job_id, result in ((running, "went on"), (accepted, "came later")):
        job = await access.until(job_id)
        assert (job["status"], job["result"]) == ("completed", result)
        assert [attempt["outcome"] for attempt in job["attempts"]] == ["succeeded"]
