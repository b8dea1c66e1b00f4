"""What people do to a release while it works: upgrade it, roll it back, restart and pause it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from tests.e2e.gate import Gate
from tests.e2e.release import Access, Release, delivery_of, eventually, unique_key

pytestmark = pytest.mark.timeout(900)

_JOBS, _RUNNING = 100, 25  # as many at once as two cores bear beside the tests
_KEPT, _NEW = 8, 4  # connections of the load
_ATTEMPTS = """
SELECT job.id::text AS id, job.status, attempt.attempt, attempt.outcome,
       attempt.pod_name AS pod
FROM hybridjobs.background_jobs job JOIN hybridjobs.job_attempts attempt ON attempt.job_id = job.id
WHERE job.id = ANY(%s::uuid[])
"""


async def test_an_upgrade_and_a_rollback_leave_a_hundred_jobs_alone(
    release: Release, access: Access, gate: Gate
) -> None:
    began = time.monotonic()
    jobs = [await access.submit("test/gated", gate.payload) for _ in range(_JOBS)]
    await _counted(access, jobs, processing=_RUNNING, queued=_JOBS - _RUNNING)
    print(f"{_RUNNING} jobs ran after {time.monotonic() - began:.0f} s")
    before = _pods_of_jobs(release, jobs)
    assert len(before) == _RUNNING
    ours = _pods(release)

    for what, act in (("upgrade", _upgrade), ("rollback", _roll_back)):
        began = time.monotonic()
        await asyncio.to_thread(act, release)
        # helm waits for the new pods, and not for the old ones to be told to end.
        for component in ("ingress", "operator"):
            await asyncio.to_thread(release.ready, component)
        print(f"the {what} took {time.monotonic() - began:.0f} s")
        replaced, ours = ours, _pods(release)
        assert not replaced & ours
    assert _pods_of_jobs(release, jobs) == before

    gate.open()
    await _counted(access, jobs, completed=_JOBS)
    attempts = await access.sql(_ATTEMPTS, jobs)
    assert {(each["attempt"], each["outcome"]) for each in attempts} == {(1, "succeeded")}
    after = _pods_of_jobs(release, jobs)
    assert before <= after
    assert after == {(each["id"], each["pod"], 0) for each in attempts}
    assert len(after) == _JOBS


def _upgrade(release: Release) -> None:
    noted = {"podAnnotations": {"upgraded": "true"}}
    values = {
        **release.values,
        "ingress": {**noted, "replicas": 2},
        "operator": {**release.values["operator"], **noted},
    }
    replace(release, values=values).install()


def _roll_back(release: Release) -> None:
    release.helm("rollback", release.name, "--wait", "--timeout", "5m")


async def _counted(access: Access, jobs: list[str], **expected: int) -> None:
    """Wait until so many of them have each status."""

    async def look() -> bool | None:
        rows = await access.sql(
            "SELECT status, count(*) AS n FROM hybridjobs.background_jobs"
            " WHERE id = ANY(%s::uuid[]) GROUP BY status",
            jobs,
        )
        return True if {row["status"]: row["n"] for row in rows} == expected else None

    await eventually(look, seconds=240, what=f"{len(jobs)} jobs to be {expected}")


def _pods(release: Release) -> set[str]:
    """The uids of ingress and operator, but for pods that are about to end."""
    components = "app.kubernetes.io/component in (ingress,operator)"
    return {
        each["metadata"]["uid"]
        for each in release.objects("pods", components)
        if "deletionTimestamp" not in each["metadata"]
    }


def _pods_of_jobs(release: Release, jobs: list[str]) -> set[tuple[str, str, int]]:
    """Job id, pod's name and restarts, of every pod of these jobs.

    Not its uid: an attempt has that only where its start was seen, before its end.
    """
    label = "hybridjobs.dev/job-id"
    return {
        (
            each["metadata"]["labels"][label],
            each["metadata"]["name"],
            sum(status["restartCount"] for status in each["status"]["containerStatuses"]),
        )
        for each in release.objects("pods", label)
        if each["metadata"]["labels"][label] in jobs
    }


async def test_a_paused_queue_and_a_rolling_restart_under_load(
    release: Release, access: Access, gate: Gate
) -> None:
    """The big red switch is thrown; meanwhile every webhook is taken, whatever is restarted."""
    running = await access.submit("test/gated", gate.payload)
    await access.until(running, "processing")
    release.scale("ingress", 2)
    told = await _hybridjobs(release, "ingress", "pause", "--all", "--by", "ana")
    assert "paused by ana" in told

    async with _load(access) as load:
        await load.has_begun()
        release.kubectl("rollout", "restart", "deployment/hybridjobs-ingress")
        await asyncio.to_thread(release.ready, "ingress")
        await _old_pods_gone(release)
    print(f"{len(load.accepted)} webhooks, over {_KEPT} kept connections and new ones")
    assert not load.failed
    rows = await access.sql(
        "SELECT key, status, attempt FROM hybridjobs.background_jobs WHERE key = ANY(%s)",
        list(load.accepted),
    )
    assert {row["key"] for row in rows} == load.accepted
    assert {(row["status"], row["attempt"]) for row in rows} == {("queued", 0)}

    queue = (await access.request("GET", "/api/types")).json()["queue"]
    assert (queue["paused"], queue["pausedBy"]) == (True, "ana")
    assert "paused by ana" in await _hybridjobs(release, "operator", "doctor", "--no-cluster")

    gate.open()
    assert (await access.until(running))["status"] == "completed"
    await access.sql(
        "SELECT hybridjobs.cancel_job(id) FROM hybridjobs.background_jobs WHERE key = ANY(%s)",
        list(load.accepted),
    )
    waiting = await access.submit("test/echo", {"hello": "again"})
    assert "paused by" not in await _hybridjobs(release, "ingress", "resume", "--all")
    job = await access.until(waiting)
    assert (job["status"], job["result"]) == ("completed", {"hello": "again"})
    release.scale("ingress", 1)


async def _hybridjobs(release: Release, component: str, *command: str) -> str:
    """What `hybridjobs` prints in one of the release's pods."""
    inside = f"deployment/{release.name}-{component}"
    told = ["exec", inside, "-c", component, "--", "sh", "-c", 'hybridjobs "$@" 2>&1 || true', "-"]
    return await asyncio.to_thread(release.kubectl, *told, *command)


async def _old_pods_gone(release: Release) -> None:
    async def look() -> bool | None:
        pods = release.objects("pods", "app.kubernetes.io/component=ingress")
        return True if len(pods) == 2 else None

    await eventually(look, seconds=90, what="the old ingress pods to be gone")


@dataclass
class _Load:
    """Webhooks without a pause, and what became of each."""

    access: Access
    accepted: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)

    async def has_begun(self) -> None:
        async def look() -> bool | None:
            return True if len(self.accepted) >= 50 else None

        await eventually(look, seconds=60, what="the load to begin")

    async def send(self, limits: httpx.Limits) -> None:
        """One client, until cancelled."""
        delivery = delivery_of("repository", "renamed")
        async with httpx.AsyncClient(timeout=30, trust_env=False, limits=limits) as client:
            client_access = replace(self.access, client=client)
            while True:
                key = unique_key()
                try:
                    answer = await client_access.deliver(delivery, delivery_id=key)
                except httpx.HTTPError as error:
                    self.failed.append(f"{limits} {error!r}")
                else:
                    if answer.status_code == 202:
                        self.accepted.add(key)
                    else:
                        self.failed.append(f"{answer.status_code} {answer.text}")
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def _load(access: Access) -> AsyncIterator[_Load]:
    load = _Load(access)
    kept, new = httpx.Limits(), httpx.Limits(max_keepalive_connections=0)
    senders = [
        asyncio.create_task(load.send(limits)) for limits in (*[kept] * _KEPT, *[new] * _NEW)
    ]
    try:
        yield load
    finally:
        for sender in senders:
            sender.cancel()
        ended: list[Any] = await asyncio.gather(*senders, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended
