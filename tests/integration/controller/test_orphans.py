"""HybridJobs without rows, Jobs without HybridJobs, rows without either: the sweep's other ways."""

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from hybridjobs.controller import sweep
from hybridjobs.ids import derived_id
from hybridjobs.kube import names
from hybridjobs.kube.client import HYBRIDJOBS, JOBS, Kubernetes, NotFound
from hybridjobs.kube.names import job_name
from hybridjobs.model import AttemptEnd, Outcome, Status
from hybridjobs.store.outcome import request_cancel
from tests.integration.controller.proxy import Proxy
from tests.integration.controller.scene import Scene

FAILED = AttemptEnd(Outcome.PERMANENT, "PermanentError", "no")
OLD = timedelta(days=8)
FORGET = "DELETE FROM hybridjobs.background_jobs WHERE id = %s"


def _old_id() -> UUID:
    """Of a job so old that retention may have taken its row."""
    return derived_id(secrets.token_hex(4), datetime.now(UTC) - OLD)


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
    job_id, name = await _recorded(scene, _old_id())
    await scene.sql(FORGET, job_id)
    await scene.sweep.once()
    with pytest.raises(NotFound):
        await scene.see(name)


async def test_a_live_hybridjob_of_an_unknown_job_is_reported_and_left(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_NAMED", 1000)
    job_id, name = await _begun(scene)
    await scene.sql(FORGET, job_id)
    await scene.due()
    with capture_logs() as told:
        await scene.sweep.once()
        await scene.sweep.once()
    assert [name in each["first"] for each in told if "HybridJobs" in each["event"]] == [True] * 2
    assert name in await scene.due()
    assert (await scene.reconciled(name))["status"]["reason"] == "UnknownJob"
    await _job(scene, job_id)


async def test_a_live_hybridjob_whose_row_is_long_gone_stays(scene: Scene) -> None:
    job_id, name = await _begun(scene, _old_id())
    await scene.end(job_id, AttemptEnd(Outcome.FAILED, "Error", "boom"))
    assert (await scene.reconciled(name))["status"]["state"] == "queued"
    await scene.sql(FORGET, job_id)
    await scene.sweep.once()
    assert (await scene.see(name))["status"]["state"] == "queued"


async def test_one_made_by_hand_that_a_backup_does_not_know_outlives_its_ttl(scene: Scene) -> None:
    await scene.made_by_hand("mine-for-now", type="test/long", ttlSecondsAfterFinished=0)
    await scene.reconciled("mine-for-now")
    job_id = (await scene.job_named("mine-for-now")).id
    await scene.sql(
        "UPDATE hybridjobs.background_jobs SET status = 'cancelled' WHERE id = %s", job_id
    )
    assert (await scene.reconciled("mine-for-now"))["status"]["state"] == "cancelled"
    await scene.sql(FORGET, job_id)
    await asyncio.sleep(1.1)  # a ttl of 0 is over when its second is
    await scene.sweep.once()
    assert (await scene.see("mine-for-now"))["status"]["state"] == "cancelled"


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


async def test_a_job_of_an_attempt_whose_row_is_long_gone_goes(scene: Scene) -> None:
    job_id, name = await _begun(scene, _old_id())
    await scene.sql(FORGET, job_id)
    await scene.orphan(name)
    await scene.sweep.once()
    await scene.sweep.once()
    with pytest.raises(NotFound):
        await _job(scene, job_id)


async def test_a_job_whose_hybridjob_is_there_stays_when_its_attempt_is_over(scene: Scene) -> None:
    job_id, _ = await _begun(scene)
    await scene.end(job_id, AttemptEnd(Outcome.FAILED, "Error", "boom"))
    await scene.sweep.once()
    await scene.sweep.once()
    assert "deletionTimestamp" not in (await _job(scene, job_id))["metadata"]


async def test_jobs_that_only_look_like_ours_are_left_alone(scene: Scene) -> None:
    job_id, _ = await _begun(scene)
    await scene.end(job_id, FAILED)
    ours = (await _job(scene, job_id))["metadata"]["labels"]
    labels: dict[str, str | None] = {
        each: ours[each] for each in (names.MANAGED_BY, names.JOB_ID, names.ATTEMPT)
    }
    changes: list[dict[str, str | None]] = [
        {},
        {names.JOB_ID: "none"},
        {names.ATTEMPT: "first"},
        {names.ATTEMPT: None},
    ]
    made = [await _foreign(scene, f"foreign-{n}", labels | each) for n, each in enumerate(changes)]
    await scene.sweep.once()
    await scene.sweep.once()
    for each in made:
        left = await scene.kubernetes.get(JOBS, scene.namespace, each)
        assert "deletionTimestamp" not in left["metadata"]


async def _foreign(scene: Scene, name: str, labels: dict[str, str | None]) -> str:
    """A Job of somebody else's; a label that is None is left out."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]}
    body = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {k: v for k, v in labels.items() if v is not None}},
        "spec": {"suspend": True, "template": {"spec": pod}},
    }
    await scene.kubernetes.create(JOBS, scene.namespace, body)
    return name


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


async def test_what_was_only_just_dispatched_is_not_missed(scene: Scene) -> None:
    job_id = await scene.dispatched()
    await scene.delete(await scene.name_of(job_id))
    await scene.sweep.once()
    await scene.sweep.once()
    assert (await scene.job(job_id)).attempts[0].ended_at is None


async def test_what_was_dispatched_while_the_lists_were_read_is_not_missed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await scene.dispatched()
    await scene.settle()  # a minute ago
    await scene.delete(await scene.name_of(job_id))
    clock = count(0.0, 60.0)
    monkeypatch.setattr(sweep, "monotonic", lambda: next(clock))
    await scene.sweep.once()
    await scene.sweep.once()
    assert (await scene.job(job_id)).attempts[0].ended_at is None


async def test_a_row_that_somebody_keeps_locked_holds_up_no_other(scene: Scene) -> None:
    locked, other = sorted([await scene.dispatched(), await scene.dispatched()])
    await scene.settle()
    for job_id in (locked, other):
        await scene.delete(await scene.name_of(job_id))
    await scene.sweep.once()
    async with scene.locked(locked):
        await scene.sweep.once()
    ended = [(await scene.job(job_id)).attempts[0].reason for job_id in (locked, other)]
    assert ended == [None, "HybridJobLost"]


@pytest.mark.parametrize("status", [403, 503])
async def test_a_sweep_that_fails_is_put_off(
    scene: Scene, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(sweep, "pauses", lambda _: iter([0.0, 0.0]))
    proxy.status = status
    async with Kubernetes(proxy.configuration(), field_manager="test") as kubernetes:
        failing = scene.sweep_of(kubernetes)
        with capture_logs() as told:
            await failing.run()
    assert [each["event"] for each in told] == ["sweep put off"] * 2


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


async def _shown(scene: Scene, job_id: UUID, name: str) -> None:
    """The HybridJob shows what the row says."""
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
    await scene.kubernetes.patch(HYBRIDJOBS, scene.namespace, name, status, subresource="status")


async def test_one_whose_job_vanished_unseen_is_looked_at(scene: Scene) -> None:
    job_id, name = await _begun(scene)
    await _shown(scene, job_id, name)
    job = (await _job(scene, job_id))["metadata"]
    await scene.kubernetes.delete(JOBS, scene.namespace, job["name"], uid=job["uid"])
    await scene.due()
    await scene.sweep.once()
    assert name in await scene.due()


async def test_only_what_needs_it_is_looked_at(scene: Scene) -> None:
    job_id, name = await _begun(scene)
    await _shown(scene, job_id, name)
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
