"""The workers of the queue: what they begin with, and how they go on when a look fails."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from hybridjobs.controller import reconcile
from hybridjobs.kube.client import JOBS
from hybridjobs.kube.names import job_name
from hybridjobs.model import AttemptEnd, Outcome, Status
from hybridjobs.store.attempts import bind_hybridjob
from hybridjobs.store.outcome import record_outcome
from tests.integration.controller.scene import Scene
from tests.waiting import eventually

LOST = AttemptEnd(Outcome.LOST, "ByTest")
_UNSAID = (
    "UPDATE hybridjobs.job_attempts SET hybridjob_uid = NULL, dispatched_at = NULL"
    " WHERE job_id = %s"
)


@asynccontextmanager
async def _leading(scene: Scene) -> AsyncIterator[None]:
    """Workers are at work; whatever ends them is raised."""
    working = asyncio.create_task(scene.reconciler.run(2))
    try:
        yield
        assert not working.done()
    finally:
        working.cancel()
        await asyncio.wait([working])


async def _until_begun(scene: Scene, job_id: UUID, attempt: int = 1) -> None:
    await eventually(lambda: scene.cache.job(job_name(job_id, attempt)) is not None)
    await scene.kubernetes.get(JOBS, scene.namespace, job_name(job_id, attempt))


async def test_who_begins_to_lead_looks_at_all_that_is_known(scene: Scene) -> None:
    job_id = await scene.dispatched()
    await scene.see(await scene.name_of(job_id))
    async with _leading(scene):
        await _until_begun(scene, job_id)


async def test_who_begins_to_lead_acts_on_the_deletions_that_another_left_undone(
    scene: Scene,
) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    body = await scene.see(name)
    await scene.delete(name)
    scene.cache.remove_hybridjob(body)
    async with _leading(scene):
        await eventually(lambda: not scene.cache.deleted)
    assert (await scene.job(job_id)).outcome_reason == "HybridJobDeleted"


async def test_who_only_follows_keeps_the_last_deletions(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "_DELETIONS_KEPT", 2)
    body = await scene.see(await scene.name_of(await scene.dispatched()))
    following = asyncio.create_task(scene.reconciler.follow())
    for name in ("a", "b", "c"):
        gone = {**body, "metadata": {**body["metadata"], "name": name}}
        scene.cache.remove_hybridjob(gone)
        scene.queue.add(name)
    await eventually(lambda: list(scene.cache.deleted) == ["b", "c"])
    assert not len(scene.queue)
    following.cancel()


async def test_a_deletion_is_acted_on_once_more_when_that_has_failed(scene: Scene) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    body = await scene.see(name)
    await scene.delete(name)
    scene.cache.remove_hybridjob(body)
    async with _leading(scene):
        async with scene.locked(job_id):
            await scene.somebody_waits()
            await asyncio.sleep(1.5)  # longer than they wait
        await eventually(lambda: not scene.cache.deleted)
    assert (await scene.job(job_id)).outcome_reason == "HybridJobDeleted"


async def test_a_fault_is_looked_at_again_and_ends_nobody(scene: Scene) -> None:
    job_id, other = await scene.dispatched(), await scene.dispatched()
    name = await scene.name_of(job_id)
    await scene.reconciled(name)
    job = await scene.kubernetes.get(JOBS, scene.namespace, job_name(job_id, 1))
    scene.cache.put_job({**job, "status": {"startTime": "never"}})
    async with _leading(scene):
        await scene.see(await scene.name_of(other))
        scene.queue.add(await scene.name_of(other))
        await _until_begun(scene, other)
        failed = {"type": "Failed", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        scene.cache.put_job({**job, "status": {"conditions": [failed]}})
        async with asyncio.timeout(20):
            while not (await scene.job(job_id)).attempts[0].outcome:  # noqa: ASYNC110 - on Postgres
                await asyncio.sleep(0.05)
    assert scene.queue.retry(name) == 0.2  # nor is it held against the job


async def test_an_attempt_that_was_closed_meanwhile_is_looked_at_afresh(scene: Scene) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    async with _leading(scene):
        async with scene.database.transaction() as connection:
            await record_outcome(connection, job_id, 1, LOST)
            await scene.see(name)
            scene.queue.add(name)
            await scene.somebody_waits()
        async with asyncio.timeout(20):
            while "status" not in await scene.see(name):  # noqa: ASYNC110 - on the API server
                await asyncio.sleep(0.05)
    assert (await scene.job(job_id)).status is Status.QUEUED
    assert scene.cache.job(job_name(job_id, 1)) is None


async def test_no_job_is_made_for_a_hybridjob_whose_place_another_takes_meanwhile(
    scene: Scene,
) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    await scene.sql(_UNSAID, job_id)
    await scene.see(name)
    async with scene.database.transaction() as connection:
        await bind_hybridjob(
            connection, job_id, 1, namespace=scene.namespace, name=name, uid="another"
        )
        looking = asyncio.create_task(scene.reconciler.reconcile(name))
        await scene.somebody_waits()
    await looking
    label = f"batch.kubernetes.io/job-name={job_name(job_id, 1)}"
    assert await scene.kubernetes.list(JOBS, scene.namespace, labels=label) == []
    assert await scene.due() == [name]
    await scene.reconciler.reconcile(name)
    assert (await scene.job(job_id)).attempts[0].reason == "Superseded"
