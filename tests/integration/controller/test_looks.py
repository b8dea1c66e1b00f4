"""One look at a HybridJob: what it does, what it leaves for the next, what it leaves alone."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from hybridjobs.controller import adoption, execute
from hybridjobs.controller.reconcile import Reconciler
from hybridjobs.errors import ClusterUnavailable, RowLocked
from hybridjobs.kube import names
from hybridjobs.kube.client import (
    CRDS,
    EVENTS,
    HYBRIDJOB_TYPES,
    HYBRIDJOBS,
    JOBS,
    PODS,
    ApiError,
    Kubernetes,
    NotFound,
)
from hybridjobs.kube.manifests import WorkerSettings
from hybridjobs.kube.names import job_name
from hybridjobs.model import AttemptEnd, Outcome, Status
from hybridjobs.store import attempts
from tests.integration.controller.proxy import Proxy
from tests.integration.controller.scene import Scene

FAILED = AttemptEnd(Outcome.PERMANENT, "PermanentError", "no")
LATER = AttemptEnd(Outcome.RETRY_LATER, "RetryLater", "not now", retry_after_seconds=900.0)
AGAIN = AttemptEnd(Outcome.FAILED, "Error", "boom")
STARTED = "2026-01-01T00:00:00Z"
_AN_HOUR_AGO = (
    "UPDATE hybridjobs.job_attempts SET claimed_at = claimed_at - interval '1 hour'"
    " WHERE job_id = %s"
)


async def _dispatched(scene: Scene) -> tuple[UUID, str, dict[str, Any]]:
    """A job, its HybridJob's name, and that as it is now."""
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    return job_id, name, await scene.see(name)


async def _begun(scene: Scene) -> tuple[UUID, str, dict[str, Any]]:
    """A job whose Kubernetes Job exists, the name of its HybridJob, and the Job."""
    job_id, name, _ = await _dispatched(scene)
    await scene.reconciled(name)
    await scene.due()
    return job_id, name, await scene.kubernetes.get(JOBS, scene.namespace, job_name(job_id, 1))


async def _gone(scene: Scene, job_id: UUID, attempt: int = 1) -> bool:
    try:
        await scene.kubernetes.get(JOBS, scene.namespace, job_name(job_id, attempt))
    except NotFound:
        return True
    return False


def _anew(body: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {**body, "metadata": {**body["metadata"], **metadata}}


def _running(job: dict[str, Any]) -> dict[str, Any]:
    """The Job's pod, whose container has just started."""
    name = job["metadata"]["name"]
    now = datetime.now(UTC).isoformat()
    state = {"name": "main", "state": {"running": {"startedAt": now}}}
    labels = {**job["metadata"]["labels"], "batch.kubernetes.io/job-name": name}
    metadata = {"name": f"{name}-x", "uid": "pod", "resourceVersion": "1", "labels": labels}
    status = {"phase": "Running", "containerStatuses": [state]}
    return {"metadata": metadata, "spec": {}, "status": status}


def _failed(scene: Scene, job: dict[str, Any]) -> dict[str, Any]:
    """The Job's pod, known like the Job to have failed."""
    pod = _running(job)
    ended = {"name": "main", "state": {"terminated": {"exitCode": 1, "startedAt": STARTED}}}
    pod["status"] = {"phase": "Failed", "containerStatuses": [ended]}
    failed = {"type": "Failed", "status": "True", "lastTransitionTime": STARTED}
    scene.cache.put_job({**job, "status": {"conditions": [failed]}})
    scene.cache.put_pod(pod)
    return pod


# What is recorded, or asked for, is looked at again at once.


async def test_a_start_is_looked_at_again(scene: Scene) -> None:
    job_id, name, job = await _begun(scene)
    scene.cache.put_pod(_running(job))
    await scene.reconciler.reconcile(name)
    assert (await scene.job(job_id)).status is Status.PROCESSING
    assert await scene.due() == [name]


async def test_an_end_is_looked_at_again(scene: Scene) -> None:
    job_id, name, job = await _begun(scene)
    uid = job["metadata"]["uid"]
    await scene.kubernetes.delete(JOBS, scene.namespace, job["metadata"]["name"], uid=uid)
    scene.cache.remove_job(job)
    await scene.reconciler.reconcile(name)
    assert (await scene.job(job_id)).attempts[0].reason == "JobDeleted"
    assert await scene.due() == [name]


async def test_a_cancel_is_looked_at_again(scene: Scene) -> None:
    job_id, name, _ = await _dispatched(scene)
    await scene.end(job_id, AGAIN)
    cancel = {"spec": {"cancel": True}}
    await scene.kubernetes.patch(HYBRIDJOBS, scene.namespace, name, cancel)
    await scene.reconciled(name)
    assert (await scene.job(job_id)).status is Status.CANCELLED
    assert await scene.due() == [name]


async def test_a_type_that_is_not_there_is_looked_for_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "_TYPE_SECONDS", 0.01)
    await scene.made_by_hand("too-early", type="not/yet")
    assert (await scene.reconciled("too-early"))["status"]["reason"] == "UnknownType"
    async with asyncio.timeout(5):
        assert await scene.queue.get() == "too-early"


async def test_a_foreign_job_of_that_name_ends_the_attempt(scene: Scene) -> None:
    job_id, name, _ = await _dispatched(scene)
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]}
    foreign = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job_name(job_id, 1), "namespace": scene.namespace},
        "spec": {"suspend": True, "template": {"spec": pod}},
    }
    made = await scene.kubernetes.create(JOBS, scene.namespace, foreign)
    await scene.reconciler.reconcile(name)
    assert await scene.due() == [name]
    await scene.reconciler.reconcile(name)
    assert (await scene.job(job_id)).attempts[0].reason == "NameConflict"
    left = await scene.kubernetes.get(JOBS, scene.namespace, job_name(job_id, 1))
    assert (left["metadata"]["uid"], left["spec"]) == (made["metadata"]["uid"], made["spec"])


# The end of an attempt.


async def test_a_log_that_was_read_is_recorded_though_the_first_try_fails(scene: Scene) -> None:
    job_id, name, job = await _begun(scene)
    pod = _failed(scene, job)
    scene.cache.keep_log(pod, "the log")  # the pod is gone by now
    async with scene.locked(job_id):
        with pytest.raises(RowLocked):
            await scene.reconciler.reconcile(name)
    await scene.reconciler.reconcile(name)
    [attempt] = (await scene.job(job_id)).attempts
    assert (attempt.outcome, attempt.log_tail) == (Outcome.FAILED, "the log")
    assert scene.cache.log_of(pod) is None


async def test_a_pod_that_is_gone_is_judged_by_what_was_last_seen_of_it(scene: Scene) -> None:
    job_id, name, job = await _begun(scene)
    failed = {"type": "Failed", "status": "True", "lastTransitionTime": STARTED}
    scene.cache.put_job({**job, "status": {"conditions": [failed]}})
    scene.cache.put_pod(_running(job))
    uid, selector = job["metadata"]["uid"], f"{names.JOB_ID}={job_id}"
    await scene.kubernetes.delete(JOBS, scene.namespace, job["metadata"]["name"], uid=uid)
    while await scene.kubernetes.list(PODS, scene.namespace, labels=selector):  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    await scene.reconciler.reconcile(name)
    [attempt] = (await scene.job(job_id)).attempts
    assert (attempt.outcome, attempt.reason) == (Outcome.DISRUPTED, "PodDeleted")


@pytest.mark.parametrize("status", [404, 503])
async def test_a_log_that_nobody_has_holds_up_no_outcome(
    scene: Scene, proxy: Proxy, refused: Reconciler, status: int
) -> None:
    job_id, name, job = await _begun(scene)
    pod = _failed(scene, job)
    path = PODS.path(scene.namespace, pod["metadata"]["name"], "log")
    proxy.refused[path] = status
    await refused.reconcile(name)
    [attempt] = (await scene.job(job_id)).attempts
    assert (attempt.outcome, attempt.log_tail) == (Outcome.FAILED, None)


# Refusals of a Job.


async def test_a_job_that_can_never_be_made_ends_the_attempt(scene: Scene) -> None:
    resources = {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}
    kind = {"apiVersion": "hybridjobs.dev/v1alpha1", "kind": "HybridJobType"}
    metadata = {"name": "too-much", "namespace": scene.namespace}
    body = {**kind, "metadata": metadata, "spec": {"type": "too-much", "resources": resources}}
    await scene.kubernetes.create(HYBRIDJOB_TYPES, scene.namespace, body)
    await scene.mirror.read_all()
    await scene.made_by_hand("too-much", type="too-much")
    await scene.reconciled("too-much")
    await scene.dispatcher.dispatch_once()
    await scene.due()
    await scene.reconciled("too-much")
    job = await scene.job_named("too-much")
    assert (job.status, job.outcome_reason) == (Status.FAILED, "InvalidJob")
    assert await scene.due() == ["too-much"]


@pytest.fixture
async def refused(scene: Scene, proxy: Proxy) -> AsyncIterator[Reconciler]:
    """A reconciler behind the proxy."""
    worker = WorkerSettings("hybridjobs:none", "Never", "default", "http://none", "x", None)
    async with Kubernetes(proxy.configuration(), field_manager="test") as kubernetes:
        yield Reconciler(
            scene.database,
            kubernetes,
            scene.cache,
            scene.queue,
            namespace=scene.namespace,
            worker=worker,
        )


@pytest.mark.parametrize("status", [401, 404, 429])
async def test_what_is_no_refusal_of_the_job_is_not_held_against_it(
    scene: Scene, proxy: Proxy, refused: Reconciler, status: int
) -> None:
    job_id, name, _ = await _dispatched(scene)
    await scene.sql(_AN_HOUR_AGO, job_id)
    proxy.status = status
    with pytest.raises(ApiError) as raised:
        await refused.reconcile(name)
    assert raised.value.status == status
    assert (await scene.job(job_id)).attempts[0].outcome is None


async def test_an_api_server_away_is_no_webhook_away(
    scene: Scene, proxy: Proxy, refused: Reconciler
) -> None:
    _, name, _ = await _dispatched(scene)
    proxy.refused["POST"] = 503
    with pytest.raises(ClusterUnavailable):
        await refused.reconcile(name)
    assert "status" not in await scene.see(name)


async def test_who_may_not_make_jobs_waits_as_long_as_a_start_may_take(
    scene: Scene, proxy: Proxy, refused: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "_REFUSED_RETRY", timedelta(seconds=0.01))
    job_id, name, _ = await _dispatched(scene)
    proxy.refused["POST"] = 403
    await refused.reconcile(name)
    status = (await scene.see(name))["status"]
    assert (status["state"], status["reason"]) == ("queued", "CreateForbidden")
    async with asyncio.timeout(5):
        assert await scene.queue.get() == name
    scene.queue.done(name)
    await scene.sql(_AN_HOUR_AGO, job_id)
    await refused.reconcile(name)
    [attempt] = (await scene.job(job_id)).attempts
    assert (attempt.outcome, attempt.reason) == (Outcome.NEVER_STARTED, "CreateForbidden")
    assert await scene.due() == [name]


# What has changed since it was read is left alone.


async def test_a_job_that_has_started_after_all_stays(scene: Scene) -> None:
    job_id, name, job = await _begun(scene)
    scene.cache.put_job({**job, "status": {"startTime": STARTED}})
    async with scene.database.transaction() as connection:
        await attempts.start(
            connection,
            job_id,
            1,
            pod_name="pod",
            pod_uid="pod",
            started_at=datetime.now(UTC),
        )
        looking = asyncio.create_task(scene.reconciler.reconcile(name))
        await scene.somebody_waits()
    await looking
    assert (await scene.job(job_id)).attempts[0].outcome is None
    assert not await _gone(scene, job_id)
    events = await scene.kubernetes.list(EVENTS, scene.namespace, fields=f"regarding.name={name}")
    assert events == []


async def test_a_late_hybridjob_that_has_changed_since_stays(scene: Scene) -> None:
    job_id, name, body = await _dispatched(scene)
    await scene.end(job_id, FAILED)
    await scene.sql(
        "UPDATE hybridjobs.background_jobs SET resource_uid = 'another' WHERE id = %s", job_id
    )
    labels = {"metadata": {"labels": {"changed": "since"}}}
    await scene.kubernetes.patch(HYBRIDJOBS, scene.namespace, name, labels)
    await scene.reconciler.reconcile(name)
    assert (await scene.see(name))["metadata"]["uid"] == body["metadata"]["uid"]
    await scene.reconciler.reconcile(name)
    with pytest.raises(NotFound):
        await scene.see(name)


async def test_a_copy_of_a_hybridjob_whose_job_is_over_stays(scene: Scene) -> None:
    job_id, name, body = await _dispatched(scene)
    await scene.end(job_id, FAILED)
    copy = {**body, "metadata": {"name": f"{name}-copy", "namespace": scene.namespace}}
    await scene.kubernetes.create(HYBRIDJOBS, scene.namespace, copy)
    status = (await scene.reconciled(f"{name}-copy"))["status"]
    assert (status["reason"], status.get("state")) == ("NotOurs", None)


@pytest.mark.parametrize("made_again", [True, False])
async def test_only_the_attempts_own_job_changes_hands(scene: Scene, made_again: bool) -> None:
    job_id, name, job = await _begun(scene)
    before = _anew(job, uid="before", ownerReferences=[])
    await scene.sql(
        "UPDATE hybridjobs.job_attempts SET job_uid = 'before' WHERE job_id = %s", job_id
    )
    scene.cache.remove_job(job)
    scene.cache.put_job(before)
    owner = {"metadata": {"ownerReferences": None}}
    await scene.kubernetes.patch(JOBS, scene.namespace, job["metadata"]["name"], owner)
    if not made_again:
        uid = job["metadata"]["uid"]
        await scene.kubernetes.delete(JOBS, scene.namespace, job["metadata"]["name"], uid=uid)
    await scene.reconciler.reconcile(name)
    assert await _gone(scene, job_id) is not made_again
    if made_again:
        left = await scene.kubernetes.get(JOBS, scene.namespace, job["metadata"]["name"])
        assert "ownerReferences" not in left["metadata"]


async def test_a_status_is_written_to_no_other_of_the_same_name(scene: Scene) -> None:
    job_id, name, body = await _dispatched(scene)
    await scene.delete(name)
    await scene.made_by_hand(name, type="test/long")
    await scene.end(job_id, AGAIN)
    scene.cache.remove_hybridjob(await scene.kubernetes.get(HYBRIDJOBS, scene.namespace, name))
    scene.cache.deleted.clear()
    scene.cache.put_hybridjob(body)
    await scene.reconciler.reconcile(name)
    assert "status" not in await scene.see(name)


async def test_a_status_that_was_written_is_known_before_the_watch_tells(scene: Scene) -> None:
    job_id, name, _ = await _dispatched(scene)
    await scene.end(job_id, AGAIN)
    await scene.reconciler.reconcile(name)
    assert scene.cache.hybridjobs[name]["status"]["state"] == "queued"


async def test_a_status_that_says_the_same_is_not_written(
    scene: Scene, proxy: Proxy, refused: Reconciler
) -> None:
    job_id, name, _ = await _dispatched(scene)
    await scene.end(job_id, AGAIN)
    await refused.reconcile(name)
    proxy.refused["PATCH"] = 503
    await refused.reconcile(name)


async def test_a_job_that_changes_hands_tells_its_events_to_the_new_owner(scene: Scene) -> None:
    job_id, name, job = await _begun(scene)
    let_go = {"ownerReferences": None, "labels": {names.HYBRIDJOB: "the-one-before"}}
    body = await scene.kubernetes.patch(
        JOBS, scene.namespace, job_name(job_id, 1), {"metadata": let_go}
    )
    scene.cache.remove_job(job)
    scene.cache.put_job(body)
    await scene.reconciler.reconcile(name)
    left = await scene.kubernetes.get(JOBS, scene.namespace, job_name(job_id, 1))
    assert left["metadata"]["labels"][names.HYBRIDJOB] == name


# A long backoff, in which there is no HybridJob.


async def test_a_hybridjob_goes_for_the_time_of_a_long_backoff_and_cancels_nothing(
    scene: Scene,
) -> None:
    job_id, name, body = await _dispatched(scene)
    await scene.end(job_id, LATER)
    await scene.reconciler.reconcile(name)
    with pytest.raises(NotFound):
        await scene.see(name)
    scene.cache.remove_hybridjob(body)
    await scene.reconciler.reconcile(name)
    job = await scene.job(job_id)
    assert (job.status, job.cancel_requested_at) == (Status.QUEUED, None)


async def test_a_hybridjob_that_has_changed_since_stays_in_a_long_backoff(scene: Scene) -> None:
    job_id, name, body = await _dispatched(scene)
    await scene.end(job_id, LATER)
    cancel = {"spec": {"cancel": True}}
    await scene.kubernetes.patch(HYBRIDJOBS, scene.namespace, name, cancel)
    await scene.reconciler.reconcile(name)
    assert (await scene.see(name))["metadata"]["uid"] == body["metadata"]["uid"]


# Deletions.


async def test_a_deletion_during_a_backoff_cancels(scene: Scene) -> None:
    job_id, name, body = await _dispatched(scene)
    await scene.end(job_id, AGAIN)
    await scene.delete(name)
    scene.cache.remove_hybridjob(body)
    await scene.reconciler.reconcile(name)
    job = await scene.job(job_id)
    assert (job.status, job.outcome_reason) == (Status.CANCELLED, "HybridJobDeleted")


async def test_a_deletion_with_the_definition_cancels_nothing(
    scene: Scene, proxy: Proxy, refused: Reconciler
) -> None:
    job_id, name, body = await _dispatched(scene)
    await scene.delete(name)
    scene.cache.remove_hybridjob(body)
    proxy.refused[CRDS.path(None, "hybridjobs.hybridjobs.dev")] = 404
    await refused.reconcile(name)
    job = await scene.job(job_id)
    assert (job.status, job.cancel_requested_at) == (Status.QUEUED, None)
    assert job.attempts[0].outcome is None


async def test_a_deletion_that_orphans_ends_the_job_too(scene: Scene) -> None:
    job_id, name, _ = await _begun(scene)
    body = await scene.see(name)
    await scene.orphan(name)
    scene.cache.remove_hybridjob(body)
    await scene.reconciler.reconcile(name)
    assert (await scene.job(job_id)).status is Status.CANCELLED
    assert await _gone(scene, job_id)


async def test_of_two_deletions_of_a_name_the_second_is_acted_on_too(scene: Scene) -> None:
    job_id, name, body = await _dispatched(scene)
    scene.cache.remove_hybridjob(_anew(body, uid="the one before"))
    await scene.delete(name)
    scene.cache.remove_hybridjob(body)
    await scene.sql(
        "UPDATE hybridjobs.job_attempts SET hybridjob_uid = %s WHERE job_id = %s",
        body["metadata"]["uid"],
        job_id,
    )
    await scene.reconciler.reconcile(name)
    assert (await scene.job(job_id)).status is Status.CANCELLED
