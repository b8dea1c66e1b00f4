"""Jobs and pods that quotas, policies and a namespace on its way out refuse."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from hybridjobs.errors import ClusterUnavailable
from hybridjobs.kube.client import (
    EVENTS,
    HYBRIDJOBS,
    JOBS,
    NAMESPACES,
    PODS,
    ApiError,
    Conflict,
    Resource,
)
from hybridjobs.kube.names import job_name
from hybridjobs.model import Outcome, Status
from tests.cluster import Cluster
from tests.conftest import DatabaseUrls, free_port
from tests.integration.controller.scene import Scene, namespace_of_its_own, opened

QUOTAS = Resource("", "v1", "resourcequotas")
CONFIG_MAPS = Resource("", "v1", "configmaps")
_ADMISSION = "admissionregistration.k8s.io"
POLICIES = Resource(_ADMISSION, "v1", "validatingadmissionpolicies", namespaced=False)
BINDINGS = Resource(_ADMISSION, "v1", "validatingadmissionpolicybindings", namespaced=False)
WEBHOOKS = Resource(_ADMISSION, "v1", "mutatingwebhookconfigurations", namespaced=False)

LONG_AGO = "2026-01-01T00:00:00Z"


@pytest.fixture
async def alone(cluster: Cluster, database_urls: DatabaseUrls) -> AsyncIterator[Scene]:
    """A scene in a namespace of its own."""
    name = f"test-{secrets.token_hex(4)}"
    with namespace_of_its_own(name):
        async with opened(cluster, name, database_urls.service) as scene:
            yield scene


async def _limit(scene: Scene, **hard: str) -> None:
    """A quota that the API server already counts by."""
    metadata = {"name": "small", "namespace": scene.namespace}
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata}
    await scene.kubernetes.create(QUOTAS, scene.namespace, {**body, "spec": {"hard": hard}})
    while True:
        quota = await scene.kubernetes.get(QUOTAS, scene.namespace, "small")
        if (quota.get("status") or {}).get("used"):
            return
        await asyncio.sleep(0.1)


@asynccontextmanager
async def _policy(scene: Scene, group: str, resource: str) -> AsyncIterator[None]:
    """A policy that refuses every such object in the scene's namespace."""
    name = f"{scene.namespace}.none"
    rule = _creating(group, resource)
    policy = {
        "matchConstraints": {"resourceRules": [rule], "namespaceSelector": _there(scene)},
        "validations": [{"expression": "false", "message": f"no {resource} on Sundays"}],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    kind = "ValidatingAdmissionPolicy"
    async with (
        _made(scene, POLICIES, {"kind": kind, "metadata": {"name": name}, "spec": policy}),
        _made(
            scene, BINDINGS, {"kind": f"{kind}Binding", "metadata": {"name": name}, "spec": binding}
        ),
    ):
        await _until_refused(scene, resource)
        yield


@asynccontextmanager
async def _webhook_away(scene: Scene) -> AsyncIterator[None]:
    """A webhook for Jobs in the scene's namespace at which nobody listens."""
    webhook = {
        "name": "jobs.example.com",
        "clientConfig": {"url": f"https://127.0.0.1:{free_port()}/"},
        "rules": [_creating("batch", "jobs")],
        "namespaceSelector": _there(scene),
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    name = f"{scene.namespace}.away"
    kind = "MutatingWebhookConfiguration"
    body = {"kind": kind, "metadata": {"name": name}, "webhooks": [webhook]}
    async with _made(scene, WEBHOOKS, body):
        await _until_refused(scene, "jobs")
        yield


def _creating(group: str, resource: str) -> dict[str, Any]:
    return {
        "apiGroups": [group],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": [resource],
    }


def _there(scene: Scene) -> dict[str, Any]:
    return {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}}


@asynccontextmanager
async def _made(scene: Scene, where: Resource, body: dict[str, Any]) -> AsyncIterator[None]:
    """An object of the whole cluster, for a time."""
    api = f"{where.group}/{where.version}"
    metadata = (await scene.kubernetes.create(where, None, {"apiVersion": api, **body}))["metadata"]
    try:
        yield
    finally:
        await scene.kubernetes.delete(where, None, metadata["name"], uid=metadata["uid"])


async def _until_refused(scene: Scene, resource: str) -> None:
    """The API server takes policies and webhooks up some time after they were made."""
    container = {"name": "main", "image": "none"}
    pod = {"restartPolicy": "Never", "containers": [container]}
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "spec": pod}
    where = PODS
    if resource == "jobs":
        spec = {"suspend": True, "template": {"spec": pod}}
        body, where = {"apiVersion": "batch/v1", "kind": "Job", "spec": spec}, JOBS
    while True:
        body["metadata"] = {"generateName": "probe-", "namespace": scene.namespace}
        try:
            made = await scene.kubernetes.create(where, scene.namespace, body)
        except (ApiError, ClusterUnavailable):
            return
        metadata = made["metadata"]
        await scene.kubernetes.delete(where, scene.namespace, metadata["name"], uid=metadata["uid"])
        await asyncio.sleep(0.2)


async def _told(scene: Scene, name: str) -> list[tuple[str, str]]:
    """Reason and note of the Events about a HybridJob."""
    events = await scene.kubernetes.list(EVENTS, scene.namespace, fields=f"regarding.name={name}")
    return [(each["reason"], each["note"]) for each in events]


async def _ended(scene: Scene, job_id: UUID, name: str, reason: str, message: str) -> None:
    """Row and Event tell the same, and a retry follows."""
    job = await scene.job(job_id)
    attempt = job.attempts[0]
    assert (attempt.outcome, attempt.reason) == (Outcome.NEVER_STARTED, reason)
    assert attempt.message is not None
    assert message in attempt.message
    assert (job.status, job.retry_count, job.error) == (Status.QUEUED, 1, attempt.message)
    [(told, note)] = await _told(scene, name)
    assert told == reason
    assert message in note


async def _without_a_job(scene: Scene, reason: str, message: str) -> None:
    """Its Job is refused: shown, waited for as long as a start may take, then ended."""
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    status = (await scene.reconciled(name))["status"]
    assert (status["state"], status["reason"]) == ("queued", reason)
    assert message in status["message"]
    assert await _told(scene, name) == []
    await scene.sql(
        "UPDATE hybridjobs.job_attempts SET claimed_at = claimed_at - interval '300 s'"
        " WHERE job_id = %s",
        job_id,
    )
    await scene.reconciled(name)
    await _ended(scene, job_id, name, reason, message)


async def _without_a_pod(scene: Scene, reason: str, message: str) -> None:
    """Its Job is there, and the Job controller is refused the pod."""
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    await scene.reconciled(name)
    while not await _refused_pods(scene, job_id):  # noqa: ASYNC110 - on the Job controller
        await asyncio.sleep(0.1)
    job = await scene.kubernetes.get(JOBS, scene.namespace, job_name(job_id, 1))
    job["status"]["startTime"] = LONG_AGO
    scene.cache.put_job(job)
    await scene.reconciled(name)
    await _ended(scene, job_id, name, reason, message)
    left = await scene.kubernetes.list(JOBS, scene.namespace)
    assert [each["metadata"]["name"] for each in left] == []


async def _refused_pods(scene: Scene, job_id: UUID) -> bool:
    fields = f"regarding.name={job_name(job_id, 1)},reason=FailedCreate"
    return bool(await scene.kubernetes.list(EVENTS, scene.namespace, fields=fields))


async def test_a_quota_of_jobs_is_named(alone: Scene) -> None:
    await _limit(alone, **{"count/jobs.batch": "0"})
    await _without_a_job(alone, "QuotaExceeded", "exceeded quota: small")


async def test_a_quota_of_pods_is_named(alone: Scene) -> None:
    await _limit(alone, pods="0")
    await _without_a_pod(alone, "QuotaExceeded", "exceeded quota: small")


async def test_a_quota_that_many_are_counted_by_at_once_is_tried_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)

    async def contended(*_: object) -> None:
        words = 'Operation cannot be fulfilled on resourcequotas "q": it has been modified'
        raise Conflict(409, "Conflict", words)

    monkeypatch.setattr(scene.kubernetes, "create", contended)
    with pytest.raises(ClusterUnavailable):  # which the work queue tries again
        await scene.reconciled(name)
    monkeypatch.undo()
    await scene.reconciled(name)
    assert await scene.kubernetes.get(JOBS, scene.namespace, job_name(job_id, 1))


async def test_a_policy_that_refuses_jobs_is_named(alone: Scene) -> None:
    async with _policy(alone, "batch", "jobs"):
        await _without_a_job(alone, "AdmissionRefused", "no jobs on Sundays")


async def test_a_policy_that_refuses_pods_is_named(alone: Scene) -> None:
    async with _policy(alone, "", "pods"):
        await _without_a_pod(alone, "AdmissionRefused", "no pods on Sundays")


async def test_a_webhook_that_does_not_answer_is_waited_for(alone: Scene) -> None:
    job_id = await alone.dispatched()
    name = await alone.name_of(job_id)
    async with _webhook_away(alone):
        with pytest.raises(ClusterUnavailable):
            await alone.reconciled(name)
        status = (await alone.see(name))["status"]
        assert (status["state"], status["reason"]) == ("queued", "WebhookUnavailable")
        assert "jobs.example.com" in status["message"]
        assert (await alone.job(job_id)).attempts[0].outcome is None


async def test_a_namespace_that_goes_cancels_nothing(alone: Scene) -> None:
    begun, unborn = await alone.dispatched(), await alone.dispatched()
    running, waiting = await alone.name_of(begun), await alone.name_of(unborn)
    await alone.reconciled(running)
    await alone.see(waiting)
    keeper: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "keeper", "finalizers": ["example.com/keep"]},
    }
    await alone.kubernetes.create(CONFIG_MAPS, alone.namespace, keeper)
    namespace = await alone.kubernetes.get(NAMESPACES, None, alone.namespace)
    uid = namespace["metadata"]["uid"]
    await alone.kubernetes.delete(NAMESPACES, None, alone.namespace, uid=uid)
    try:
        await alone.sql(
            "UPDATE hybridjobs.job_attempts SET claimed_at = claimed_at - interval '300 s'"
            " WHERE job_id = %s",
            unborn,
        )
        await alone.reconciler.reconcile(waiting)
        assert (await alone.job(unborn)).attempts[0].outcome is None
        while await alone.kubernetes.list(HYBRIDJOBS, alone.namespace):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        for name in (running, waiting):
            alone.cache.remove_hybridjob(alone.cache.hybridjobs[name])
            await alone.reconciler.reconcile(name)
        for job_id in (begun, unborn):
            job = await alone.job(job_id)
            assert (job.status, job.retry_count) == (Status.QUEUED, 0)
            assert [(each.outcome, each.reason) for each in job.attempts] == [
                (Outcome.LOST, "NamespaceTerminating")
            ]
            assert job.error == "its namespace is being deleted"
    finally:
        released = {"metadata": {"finalizers": None}}
        await alone.kubernetes.patch(CONFIG_MAPS, alone.namespace, "keeper", released)
