"""Claims become HybridJobs, on the real API server and a real Postgres."""

from typing import Any

import pytest

from hybridjobs.ids import new_id
from hybridjobs.kube.client import HYBRIDJOBS
from hybridjobs.kube.names import hybridjob_name
from hybridjobs.model import AttemptEnd, Outcome, Status
from hybridjobs.store.attempts import read_job
from hybridjobs.store.outcome import request_cancel
from tests.integration.controller.scene import Scene

_RELEASE = (
    "UPDATE hybridjobs.job_attempts SET claimed_at = claimed_at - interval '6 s' WHERE job_id = %s"
)


async def test_a_claim_whose_dispatcher_died_is_said_again(scene: Scene) -> None:
    job_id = await scene.dispatched()
    await scene.sql(
        "UPDATE hybridjobs.background_jobs SET resource_uid = NULL, resource_name = NULL "
        "WHERE id = %s",
        job_id,
    )
    await scene.sql(
        "UPDATE hybridjobs.job_attempts SET dispatched_at = NULL, hybridjob_uid = NULL, "
        "claimed_at = claimed_at - interval '6 s' WHERE job_id = %s",
        job_id,
    )
    assert await scene.dispatcher.dispatch_once() == 1
    assert [each.attempt for each in (await scene.job(job_id)).attempts] == [1]
    assert (await scene.see(await scene.name_of(job_id)))["spec"]["jobId"] == str(job_id)


async def test_a_job_cancelled_by_its_spec_can_be_run_anew(scene: Scene) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    cancel = {"spec": {"cancel": True}}
    await scene.kubernetes.patch(HYBRIDJOBS, scene.namespace, name, cancel)
    for _ in range(3):
        before = await scene.reconciled(name)
    assert before["status"]["state"] == "cancelled"
    await scene.sql("SELECT hybridjobs.retry_failed_job(%s)", job_id)
    await scene.reconciled(name)
    assert (await scene.job(job_id)).status is Status.QUEUED

    await scene.dispatcher.dispatch_once()
    await scene.sql(_RELEASE, job_id)
    await scene.dispatcher.dispatch_once()
    after = await scene.see(name)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"].get("cancel") is None
    scene.cache.remove_hybridjob(before)  # its event comes late
    await scene.see(name)
    await scene.reconciler.reconcile(name)
    job = await scene.job(job_id)
    assert (job.status, job.cancel_requested_at) == (Status.QUEUED, None)


@pytest.mark.parametrize("known", [True, False])
async def test_a_database_from_a_backup_counts_up_to_the_hybridjob(
    scene: Scene, known: bool
) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    later = {"spec": {"attempt": 3}}
    await scene.kubernetes.patch(HYBRIDJOBS, scene.namespace, name, later)
    await scene.sql(
        "UPDATE hybridjobs.job_attempts SET dispatched_at = NULL, hybridjob_uid = NULL, "
        "claimed_at = claimed_at - interval '6 s' WHERE job_id = %s",
        job_id,
    )
    if not known:
        await scene.sql(
            "UPDATE hybridjobs.background_jobs SET resource_uid = NULL WHERE id = %s", job_id
        )
    assert await scene.dispatcher.dispatch_once() == 1
    assert (await scene.see(name))["spec"]["attempt"] == 3
    assert (await scene.job(job_id)).attempts[0].dispatched_at is not None


async def test_a_cancel_that_a_backup_does_not_know_is_not_taken_back(scene: Scene) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    await scene.kubernetes.patch(HYBRIDJOBS, scene.namespace, name, {"spec": {"cancel": True}})
    for _ in range(3):
        before = await scene.reconciled(name)
    assert before["status"]["state"] == "cancelled"
    await scene.sql("DELETE FROM hybridjobs.job_attempts WHERE job_id = %s", job_id)
    await scene.sql("DELETE FROM hybridjobs.background_jobs WHERE id = %s", job_id)
    await scene.dispatched(job_id)
    again = await scene.reconciled(name)
    assert again["metadata"]["uid"] == before["metadata"]["uid"]
    assert (await scene.job(job_id)).status is Status.CANCELLED


@pytest.mark.parametrize(("started", "outcome"), [("NULL", "never_started"), ("now()", "lost")])
async def test_a_name_that_is_taken_ends_the_attempt_in_time(
    scene: Scene, started: str, outcome: str
) -> None:
    job_id = new_id()
    await scene.made_by_hand(hybridjob_name("test/long", job_id), type="test/long")
    await scene.sql(
        "INSERT INTO hybridjobs.background_jobs (id, type) VALUES (%s, 'test/long')", job_id
    )
    assert await scene.dispatcher.dispatch_once() == 0
    assert (await scene.job(job_id)).attempts[0].ended_at is None
    await scene.sql(
        "UPDATE hybridjobs.job_attempts SET claimed_at = claimed_at - interval '6 min', "
        f"started_at = {started} WHERE job_id = %s",
        job_id,
    )
    assert await scene.dispatcher.dispatch_once() == 0
    [attempt] = (await scene.job(job_id)).attempts
    assert (attempt.outcome, attempt.reason) == (outcome, "NameConflict")


async def test_one_whose_name_was_given_away_runs_under_a_name_of_its_own(scene: Scene) -> None:
    await scene.made_by_hand("mine", type="test/long")
    await scene.reconciled("mine")
    job_id = (await scene.job_named("mine")).id
    await scene.delete("mine")
    await scene.made_by_hand("mine", type="test/long", cancel=True)
    await scene.dispatcher.dispatch_once()  # learns that it is gone
    await scene.sql(_RELEASE, job_id)
    await scene.dispatcher.dispatch_once()
    assert "jobId" not in (await scene.see("mine"))["spec"]
    assert await scene.name_of(job_id) == hybridjob_name("test/long", job_id)
    assert (await scene.see(await scene.name_of(job_id)))["spec"]["jobId"] == str(job_id)


async def test_a_cancel_asked_for_before_the_hybridjob_exists(scene: Scene) -> None:
    job_id = await scene.dispatched()
    async with scene.database.connection() as connection:
        await request_cancel(connection, job_id)
    await scene.reconciled(await scene.name_of(job_id))
    assert (await scene.job(job_id)).status is Status.CANCELLED


async def test_one_made_anew_meanwhile_is_not_taken_for_the_one_before(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    before = await scene.see(name)
    await scene.end(job_id, AttemptEnd(Outcome.LOST, "ByTest"))
    await scene.delete(name)
    await scene.made_by_hand(name, type="test/long")

    async def read_before(*_: object) -> dict[str, Any]:
        return before

    monkeypatch.setattr(scene.kubernetes, "get", read_before)
    await scene.dispatcher.dispatch_once()
    monkeypatch.undo()
    assert "attempt" not in (await scene.see(name))["spec"]
    async with scene.database.connection() as connection:
        row = await read_job(connection, job_id)
    assert row is not None
    assert (row.open_attempt, row.resource_uid) == (2, None)
