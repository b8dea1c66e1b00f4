"""Of two operators one acts; when it is killed, stopped or frozen, the other does."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.processes import pids_of
from tests.e2e.release import Access, Release, eventually

pytestmark = pytest.mark.timeout(300)


def _leader(release: Release) -> str:
    """The process that leads: POD_UUID; "" while none does."""
    lease = release.object("lease", f"{release.name}-operator")
    holder: str = lease["spec"].get("holderIdentity") or ""
    return holder


async def _leads(release: Release) -> str:
    """The one that leads, of two."""
    assert len(release.objects("pods", "app.kubernetes.io/component=operator")) >= 2

    async def look() -> str | None:
        return _leader(release) or None

    return await eventually(look, seconds=60, what="an operator to lead")


def _pod(leader: str) -> str:
    return leader.rpartition("_")[0]


def _processes(release: Release, leader: str) -> list[int]:
    """Its pids on this machine."""
    pids = pids_of(release.object("pod", _pod(leader)), "operator")
    if not pids:
        pytest.skip("this cluster's processes are not on this machine")
    return pids


async def _another_leads(release: Release, former: str) -> float:
    """Wait for another leader; after how many seconds it was there."""
    began = time.monotonic()

    async def look() -> bool | None:
        return True if _leader(release) not in ("", former) else None

    await eventually(look, seconds=60, what="another operator to lead")
    return time.monotonic() - began


async def _handed_over(release: Release, end: Callable[[str], None], what: str) -> None:
    """End the leader, wait for another, and say how long that took."""
    former = await _leads(release)
    end(former)
    seconds = await _another_leads(release, former)
    print(f"after {what} another operator led within {seconds:.1f} s")


async def _submitted(access: Access, count: int) -> list[str]:
    """Jobs that run for some seconds."""
    payloads = [{"sleep": 4 + number % 5, "message": str(number)} for number in range(count)]
    return [await access.submit("test/script", each) for each in payloads]


async def _completed(access: Access, jobs: list[str]) -> None:
    """Wait for their ends: each completed, by one attempt, with its own result."""
    for number, job_id in enumerate(jobs):
        job = await access.until(job_id, seconds=150)
        assert (job["status"], job["result"]) == ("completed", number)
        assert [each["outcome"] for each in job["attempts"]] == ["succeeded"]


@contextmanager
def _frozen(pids: list[int]) -> Iterator[None]:
    """Stop processes, as a machine that is paused does; they go on afterwards."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def test_when_the_leader_is_killed_the_other_goes_on(
    release: Release, access: Access
) -> None:
    jobs = await _submitted(access, 6)
    await access.until(jobs[0], "processing", "completed")

    def kill(leader: str) -> None:
        for pid in _processes(release, leader):
            os.kill(pid, signal.SIGKILL)

    await _handed_over(release, kill, "a kill")
    await _completed(access, jobs)


async def test_the_leader_s_figures_say_what_it_did(release: Release, access: Access) -> None:
    jobs = await _submitted(access, 2)
    await _completed(access, jobs)
    leader = _pod(await _leads(release))
    pods = [
        each["metadata"]["name"]
        for each in release.objects("pods", "app.kubernetes.io/component=operator")
    ]
    figures = {pod: await asyncio.to_thread(_figures, release, pod) for pod in pods}
    assert {pod for pod in pods if figures[pod]["hybridjobs_operator_leading"] == 1} == {leader}
    told = figures[leader]
    ended = 'outcome="succeeded",reason="Completed",type="test/script"'
    assert told[f"hybridjobs_attempts_ended_total{{{ended}}}"] >= len(jobs)
    assert told["hybridjobs_record_lag_seconds_count"] >= len(jobs)
    assert told["hybridjobs_start_wait_seconds_count"] >= len(jobs)
    assert told['hybridjobs_kubernetes_requests_total{code="201",verb="POST"}'] >= len(jobs)
    assert told['hybridjobs_reconcile_seconds_count{result="ok"}'] >= len(jobs)
    assert told["hybridjobs_workqueue_depth"] >= 0


def _figures(release: Release, pod: str) -> dict[str, float]:
    """What a pod tells Prometheus, by name and labels."""
    path = f"/api/v1/namespaces/{release.namespace}/pods/{pod}:9090/proxy/metrics"
    lines = release.kubectl("get", "--raw", path).splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")
    }


async def test_when_the_leader_stops_the_other_goes_on_at_once(
    release: Release, access: Access
) -> None:
    jobs = await _submitted(access, 3)

    def stop(leader: str) -> None:
        release.kubectl("delete", "pod", _pod(leader), "--wait=false")

    await _handed_over(release, stop, "a clean stop")
    await _completed(access, jobs)


async def test_a_leader_that_was_frozen_changes_nothing_afterwards(
    release: Release, access: Access
) -> None:
    jobs = await _submitted(access, 10)
    await access.until(jobs[0], "processing", "completed")
    former = await _leads(release)
    with _frozen(_processes(release, former)):
        await _another_leads(release, former)
        await _completed(access, jobs)
        before = await _recorded(access, jobs)
    await asyncio.sleep(5)
    assert await _recorded(access, jobs) == before
    assert _leader(release) != former
    release.ready("operator")


async def _recorded(access: Access, jobs: list[str]) -> object:
    """All that the database says of them."""
    return await access.sql(
        "SELECT to_jsonb(job) AS job, (SELECT jsonb_agg(attempt ORDER BY attempt.attempt)"
        "  FROM hybridjobs.job_attempts AS attempt WHERE attempt.job_id = job.id) AS attempts"
        " FROM hybridjobs.background_jobs AS job WHERE job.id = ANY(%s::uuid[]) ORDER BY job.id",
        jobs,
    )
