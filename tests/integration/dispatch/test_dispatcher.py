"""Claims become HybridJobs, on the real API server and a real Postgres."""

from typing import Any
from uuid import UUID

import pytest

from hybridjobs.dispatch.cluster import ClusterRuntime
from hybridjobs.dispatch.loop import Dispatcher
from hybridjobs.errors import ClusterUnavailable
from hybridjobs.ids import new_id
from hybridjobs.kube.client import HYBRIDJOBS, Invalid, Kubernetes
from hybridjobs.kube.names import hybridjob_name
from hybridjobs.model import AttemptEnd, Outcome, Status
from hybridjobs.store.attempts import read_job
from hybridjobs.store.claim import claim
from hybridjobs.store.outcome import request_cancel
from tests.integration.controller.proxy import Proxy
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


async def _cancelled_by_its_spec(scene: Scene) -> tuple[UUID, str, dict[str, Any]]:
    """A job, its HybridJob's name, and that as it is since."""
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    await scene.kubernetes.patch(HYBRIDJOBS, scene.namespace, name, {"spec": {"cancel": True}})
    for _ in range(3):
        body = await scene.reconciled(name)
    assert body["status"]["state"] == "cancelled"
    return job_id, name, body


async def test_a_job_cancelled_by_its_spec_can_be_run_anew(scene: Scene) -> None:
    job_id, name, before = await _cancelled_by_its_spec(scene)
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
    job_id, name, before = await _cancelled_by_its_spec(scene)
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


_SIX_MINUTES_AGO = (
    "UPDATE hybridjobs.job_attempts SET claimed_at = claimed_at - interval '6 min'"
    " WHERE job_id = %s"
)


async def _claimed(scene: Scene) -> UUID:
    """A job whose attempt was claimed some time ago, and that nobody has said."""
    job_id = new_id()
    await scene.sql(
        "INSERT INTO hybridjobs.background_jobs (id, type) VALUES (%s, 'test/long')", job_id
    )
    async with scene.database.transaction() as connection:
        await claim(connection, window=50)
    await scene.sql(_SIX_MINUTES_AGO, job_id)
    return job_id


async def _dispatch(scene: Scene, proxy: Proxy, namespace: str) -> int:
    """One round through the proxy, with that namespace as the dispatcher's own."""
    async with Kubernetes(proxy.configuration(), field_manager="hybridjobs-test") as kubernetes:
        runtime = ClusterRuntime(scene.database, kubernetes, namespace=namespace)
        return await Dispatcher(scene.database, runtime, window=50).dispatch_once()


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_what_is_no_refusal_of_the_hybridjob_is_waited_for(
    scene: Scene, proxy: Proxy, status: int
) -> None:
    job_id = await _claimed(scene)
    proxy.status = status
    assert await _dispatch(scene, proxy, scene.namespace) == 0
    assert (await scene.job(job_id)).attempts[0].outcome is None


@pytest.mark.parametrize("status", [429, 503])
async def test_a_cluster_that_cannot_answer_now_puts_the_round_off(
    scene: Scene, proxy: Proxy, status: int
) -> None:
    job_id = await _claimed(scene)
    proxy.status = status
    with pytest.raises(ClusterUnavailable):
        await _dispatch(scene, proxy, scene.namespace)
    assert (await scene.job(job_id)).attempts[0].outcome is None


async def test_an_attempt_that_ends_while_its_hybridjob_is_refused(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await _claimed(scene)

    async def refuse(*_: object) -> None:
        await scene.end(job_id, AttemptEnd(Outcome.CANCELLED, "Cancelled"))
        raise Invalid(422, "Invalid", "by test")

    monkeypatch.setattr(scene.kubernetes, "create", refuse)
    assert await scene.dispatcher.dispatch_once() == 0
    assert (await scene.job(job_id)).attempts[0].reason == "Cancelled"


async def test_a_job_stays_in_the_namespace_of_its_hybridjob(scene: Scene, proxy: Proxy) -> None:
    job_id = await _claimed(scene)
    await scene.sql(
        "UPDATE hybridjobs.background_jobs SET namespace = %s WHERE id = %s",
        scene.namespace,
        job_id,
    )
    assert await _dispatch(scene, proxy, "elsewhere") == 1
    assert (await scene.see(await scene.name_of(job_id)))["spec"]["jobId"] == str(job_id)


async def test_a_hybridjob_that_is_being_deleted_is_waited_for(scene: Scene) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    async with scene.held_up(name):
        await scene.delete(name)
        await scene.end(job_id, AttemptEnd(Outcome.LOST, "ByTest"))
        await scene.sql("UPDATE hybridjobs.background_jobs SET resource_uid = NULL")
        assert await scene.dispatcher.dispatch_once() == 0
        before = await scene.see(name)
        assert before["spec"]["attempt"] == 1
    await scene.sql(_RELEASE, job_id)
    assert await scene.dispatcher.dispatch_once() == 1
    after = await scene.see(name)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"]["attempt"] == 2


async def _run_anew(scene: Scene, job_id: UUID) -> None:
    """As people do it, of a job that is over."""
    await scene.sql(
        "UPDATE hybridjobs.background_jobs SET status = 'queued', run_at = now() WHERE id = %s",
        job_id,
    )


async def test_one_that_was_not_cancelled_by_its_spec_says_the_next_run(scene: Scene) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    await scene.end(job_id, AttemptEnd(Outcome.CANCELLED, "Cancelled"))
    before = await scene.reconciled(name)
    assert before["status"]["state"] == "cancelled"
    await _run_anew(scene, job_id)
    assert await scene.dispatcher.dispatch_once() == 1
    after = await scene.see(name)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["attempt"] == 2


async def test_a_cancel_that_came_too_late_does_not_cancel_the_next_run(scene: Scene) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    await scene.end(job_id, AttemptEnd(Outcome.SUCCEEDED, "Completed"))
    cancel = {"spec": {"cancel": True}}
    await scene.kubernetes.patch(HYBRIDJOBS, scene.namespace, name, cancel)
    before = await scene.reconciled(name)
    assert before["status"]["state"] == "completed"
    await _run_anew(scene, job_id)
    await scene.reconciled(name)
    for _ in range(2):
        await scene.dispatcher.dispatch_once()
        await scene.sql(_RELEASE, job_id)
    after = await scene.reconciled(name)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    job = await scene.job(job_id)
    assert (job.status, job.cancel_requested_at) == (Status.QUEUED, None)


async def test_one_of_an_earlier_run_that_has_changed_since_is_not_deleted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, name, before = await _cancelled_by_its_spec(scene)
    await _run_anew(scene, job_id)
    labels = {"metadata": {"labels": {"changed": "since"}}}
    await scene.kubernetes.patch(HYBRIDJOBS, scene.namespace, name, labels)

    async def read_before(*_: object) -> dict[str, Any]:
        return before

    monkeypatch.setattr(scene.kubernetes, "get", read_before)
    await scene.dispatcher.dispatch_once()
    monkeypatch.undo()
    assert (await scene.see(name))["metadata"]["uid"] == before["metadata"]["uid"]


async def test_a_cancel_that_nobody_has_seen_yet_stays_for_the_next_attempt(scene: Scene) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    await scene.end(job_id, AttemptEnd(Outcome.LOST, "ByTest"))
    await scene.kubernetes.patch(HYBRIDJOBS, scene.namespace, name, {"spec": {"cancel": True}})
    assert await scene.dispatcher.dispatch_once() == 1
    assert (await scene.see(name))["spec"]["attempt"] == 2
    await scene.reconciled(name)
    assert (await scene.job(job_id)).cancel_requested_at is not None


async def test_a_claim_that_was_closed_meanwhile_replaces_nothing(
    scene: Scene, proxy: Proxy
) -> None:
    job_id, name, before = await _cancelled_by_its_spec(scene)
    await _run_anew(scene, job_id)
    async with scene.database.transaction() as connection:
        [claimed] = await claim(connection, window=50)
    await scene.end(job_id, AttemptEnd(Outcome.CANCELLED, "Cancelled"), attempt=2)
    async with Kubernetes(proxy.configuration(), field_manager="hybridjobs-test") as kubernetes:
        late = ClusterRuntime(scene.database, kubernetes, namespace=scene.namespace)
        await late.dispatch(claimed)
    async with scene.database.connection() as connection:
        row = await read_job(connection, job_id)
    assert row is not None
    uid = before["metadata"]["uid"]
    assert (row.resource_uid, (await scene.see(name))["metadata"]["uid"]) == (uid, uid)
