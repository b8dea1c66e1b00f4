"""HybridJobs without rows, Jobs without HybridJobs, rows without either: the sweep's other ways."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from hybridjobs.controller import sweep
from hybridjobs.ids import first_id_of
from hybridjobs.kube.client import HYBRIDJOBS, JOBS, NotFound
from hybridjobs.kube.names import job_name
from hybridjobs.model import AttemptEnd, Outcome, Status
from hybridjobs.store.outcome import request_cancel
from tests.integration.controller.scene import Scene

FAILED = AttemptEnd(Outcome.PERMANENT, "PermanentError", "no")
OLD = timedelta(days=8)
FORGET = "DELETE FROM hybridjobs.background_jobs WHERE id = %s"


async def _begun(scene: Scene, job_id: UUID | None = None) -> tuple[UUID, str]:
    """A job whose Kubernetes Job exists, and the name of its HybridJob."""
    job_id = await scene.dispatched(job_id)
    name = await scene.name_of(job_id)
    await scene.reconciled(name)
    await scene.settle()
    return job_id, name


async def _recorded(scene: Scene, job_id: UUID | None = None) -> tuple[UUID, str]:
    """A job that has failed, and whose HybridJob says so."""
    job_id, name = await _begun(scene, job_id)
    await scene.end(job_id, FAILED)
    await scene.reconciled(name)
    return job_id, name


async def _job(scene: Scene, job_id: UUID) -> dict[str, Any]:
    return await scene.kubernetes.get(JOBS, scene.namespace, job_name(job_id, 1))


async def test_what_the_cluster_has_of_a_job_that_a_backup_does_not_know_stays(
    scene: Scene,
) -> None:
    job_id, name = await _recorded(scene)
    await scene.sql(FORGET, job_id)
    await scene.sweep.once()
    assert (await scene.see(name))["status"]["state"] == "failed"


async def test_a_hybridjob_goes_whose_row_retention_took_first(scene: Scene) -> None:
    job_id, name = await _recorded(scene, first_id_of(datetime.now(UTC) - OLD))
    await scene.sql(FORGET, job_id)
    await scene.sweep.once()
    with pytest.raises(NotFound):
        await scene.see(name)


async def test_a_live_hybridjob_of_an_unknown_job_is_reported_and_left(scene: Scene) -> None:
    job_id, name = await _begun(scene)
    await scene.sql(FORGET, job_id)
    await scene.due()
    await scene.sweep.once()
    await scene.sweep.once()
    assert name in await scene.due()
    assert (await scene.reconciled(name))["status"]["reason"] == "UnknownJob"
    await _job(scene, job_id)


async def test_a_hybridjob_that_came_unseen_is_looked_at(scene: Scene) -> None:
    await scene.made_by_hand("unseen", type="test/long")
    await scene.sweep.once()
    assert "unseen" in await scene.due()


async def test_a_job_left_by_a_deleted_hybridjob_goes_when_its_attempt_is_over(
    scene: Scene,
) -> None:
    job_id, name = await _begun(scene)
    await scene.end(job_id, FAILED)
    await scene.orphan(name)
    await scene.sweep.once()
    await _job(scene, job_id)  # an event may be on its way
    await scene.sweep.once()
    with pytest.raises(NotFound):
        await _job(scene, job_id)


async def test_a_job_of_an_unknown_attempt_is_left_alone(scene: Scene) -> None:
    job_id, name = await _begun(scene)
    await scene.sql(FORGET, job_id)
    await scene.orphan(name)
    await scene.sweep.once()
    await scene.sweep.once()
    assert "deletionTimestamp" not in (await _job(scene, job_id))["metadata"]


async def test_a_running_job_whose_hybridjob_vanished_gets_another_and_runs_on(
    scene: Scene,
) -> None:
    job_id, name = await _begun(scene)
    ours = await _job(scene, job_id)
    scene.cache.put_job(ours)
    await scene.orphan(name)
    await scene.sweep.once()
    await scene.sweep.once()
    assert name not in scene.cache.hybridjobs
    await scene.dispatcher.dispatch_once()
    again = await scene.see(name)
    scene.cache.put_job(await _job(scene, job_id))
    await scene.reconciler.reconcile(name)

    left = await _job(scene, job_id)
    [owner] = left["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == (again["metadata"]["uid"], True)
    assert left["metadata"]["uid"] == ours["metadata"]["uid"]
    job = await scene.job(job_id)
    assert [each.ended_at for each in job.attempts] == [None]
    scene.cache.put_job(left)
    await scene.due()
    await scene.reconciler.reconcile(name)
    assert [each.ended_at for each in (await scene.job(job_id)).attempts] == [None]


async def test_what_vanished_with_its_job_is_lost_whatever_the_page(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_PAGE", 2)
    job_ids = [await scene.dispatched() for _ in range(5)]
    await scene.settle()
    kept, *gone = sorted(job_ids)
    for job_id in gone:
        await scene.delete(await scene.name_of(job_id))
    await scene.sweep.once()
    assert [(await scene.job(job_id)).attempts[0].reason for job_id in gone] == [None] * 4
    await scene.sweep.once()
    for job_id in gone:
        job = await scene.job(job_id)
        assert (job.attempts[0].reason, job.retry_count) == ("HybridJobLost", 0)
    assert (await scene.job(kept)).attempts[0].ended_at is None
    assert not scene.cache.hybridjobs


async def test_one_made_by_hand_that_is_made_again_goes_when_its_time_is_over(
    scene: Scene,
) -> None:
    await scene.made_by_hand("mine", type="test/long")
    await scene.reconciled("mine")
    job_id = (await scene.job_named("mine")).id
    await scene.dispatcher.dispatch_once()
    first = await scene.reconciled("mine")
    await scene.settle()
    await scene.delete("mine")
    await scene.sweep.once()
    await scene.sweep.once()
    await scene.sql("UPDATE hybridjobs.background_jobs SET run_at = now() WHERE id = %s", job_id)
    await scene.dispatcher.dispatch_once()  # learns that it is gone
    await scene.settle()
    await scene.dispatcher.dispatch_once()
    again = await scene.see("mine")
    assert again["metadata"]["uid"] != first["metadata"]["uid"]
    assert again["spec"]["attempt"] == 2
    await scene.end(job_id, FAILED, attempt=2)
    await scene.reconciled("mine")
    await scene.sweep.once()
    with pytest.raises(NotFound):
        await scene.see("mine")


async def test_only_what_needs_it_is_looked_at(scene: Scene) -> None:
    job_id, name = await _begun(scene)
    body = await scene.see(name)
    accepted = {
        "type": "Accepted",
        "status": "True",
        "reason": "RowWritten",
        "message": "",
        "lastTransitionTime": body["metadata"]["creationTimestamp"],
    }
    state = (await scene.job(job_id)).status.value
    status = {"status": {"state": state, "conditions": [accepted]}}
    await scene.kubernetes.patch(
        HYBRIDJOBS,
        scene.namespace,
        name,
        {**status, "metadata": {"uid": body["metadata"]["uid"]}},
        subresource="status",
    )
    await scene.due()
    await scene.sweep.once()
    assert name not in await scene.due()
    await scene.sql(
        "UPDATE hybridjobs.background_jobs SET status = 'processing' WHERE id = %s", job_id
    )
    async with scene.database.connection() as connection:
        assert await request_cancel(connection, job_id) is Status.PROCESSING
    await scene.kubernetes.patch(
        HYBRIDJOBS, scene.namespace, name, {"status": {"state": "processing"}}, subresource="status"
    )
    await scene.sweep.once()
    assert name in await scene.due()
