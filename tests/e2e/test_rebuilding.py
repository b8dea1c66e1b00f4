"""The cluster forgets everything, the database nothing: open jobs are run again."""

import asyncio

import pytest

from tests.e2e.gate import Gate
from tests.e2e.release import Access, Release, eventually

pytestmark = pytest.mark.timeout(600)

_DEFINITIONS = tuple(
    f"{plural}.hybridjobs.dev" for plural in ("hybridjobs", "hybridjobtypes", "hybridjobschedules")
)


async def test_definitions_deleted_and_made_again_cost_no_job(
    release: Release, access: Access, gate: Gate
) -> None:
    jobs = [await access.submit("test/gated", gate.payload) for _ in range(3)]
    for job_id in jobs:
        await access.until(job_id, "processing")
    await asyncio.to_thread(release.kubectl, "delete", "crd", *_DEFINITIONS, scoped=False)
    waiting = await access.submit("test/echo", {"said": "without definitions"})
    await asyncio.to_thread(release.install)
    await _run_again(access, [*jobs, waiting], began=jobs, gate=gate)


async def test_a_cluster_made_anew_runs_what_the_database_has(
    release: Release, access: Access, gate: Gate
) -> None:
    jobs = [await access.submit("test/gated", gate.payload) for _ in range(3)]
    for job_id in jobs:
        await access.until(job_id, "processing")
    release.scale("operator", 0)
    dispatched = await access.submit("test/echo", {"said": "without an operator"})
    await access.until(dispatched, "queued")
    release.scale("ingress", 0)
    await asyncio.to_thread(release.kubectl, "delete", "crd", *_DEFINITIONS, scoped=False)
    await _nothing_runs(release)
    await asyncio.to_thread(release.install)
    await _run_again(access, [*jobs, dispatched], began=jobs, gate=gate)


async def _nothing_runs(release: Release) -> None:
    async def look() -> bool | None:
        return True if not release.objects("jobs,pods", "hybridjobs.dev/job-id") else None

    await eventually(look, seconds=90, what="Jobs and pods to go with their HybridJobs")


async def _run_again(access: Access, jobs: list[str], *, began: list[str], gate: Gate) -> None:
    """All end well; those that ran were lost, and begun once more, at no retry's expense."""
    await asyncio.gather(*(_second_attempt(access, job_id) for job_id in began))
    gate.open()
    for job_id in jobs:
        job = await access.until(job_id, seconds=240)
        assert (job["status"], job["retryCount"]) == ("completed", 0), job
        if job_id in began:
            assert [each["outcome"] for each in job["attempts"]] == ["lost", "succeeded"], job


async def _second_attempt(access: Access, job_id: str) -> None:
    """Wait for it: the first may end for no other reason than that its pod is gone."""

    async def look() -> bool | None:
        [row] = await access.sql(
            "SELECT attempt FROM hybridjobs.background_jobs WHERE id = %s", job_id
        )
        return True if row["attempt"] == 2 else None

    await eventually(look, seconds=240, what=f"job {job_id} to begin once more")
