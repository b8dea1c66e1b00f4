"""Carries out what `decide` says: every write is guarded where it lands."""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import assert_never

import structlog

from hybridjobs.controller import actions, metrics
from hybridjobs.controller.adoption import catch_up
from hybridjobs.controller.cache import Cache, Object
from hybridjobs.controller.decide import View
from hybridjobs.controller.definitions import namespace_goes
from hybridjobs.controller.events import Events
from hybridjobs.controller.logs import PodLogs
from hybridjobs.controller.observe import NAMESPACE_TERMINATING, why_refused
from hybridjobs.controller.status import hybridjob_status, not_accepted_status
from hybridjobs.controller.views import Views
from hybridjobs.controller.workqueue import WorkQueue
from hybridjobs.errors import ClusterUnavailable
from hybridjobs.kube import names
from hybridjobs.kube.client import (
    HYBRIDJOBS,
    JOBS,
    PODS,
    AlreadyExists,
    ApiError,
    Conflict,
    Invalid,
    Kubernetes,
    NotFound,
    Resource,
)
from hybridjobs.kube.manifests import WorkerSettings, kubernetes_job, owner_reference
from hybridjobs.model import AttemptEnd, Outcome
from hybridjobs.store import attempts
from hybridjobs.store.database import Database
from hybridjobs.store.outcome import add_evidence, record_final_outcome, request_cancel
from hybridjobs.store.resources import forget_uid

log = structlog.get_logger(__name__)

NAMESPACE_GOES = "its namespace is being deleted"

_REFUSED_RETRY = timedelta(seconds=5)
_NO_REFUSAL = {401, 404, 429}  # of our credentials, of a namespace not there, of load
# What the deletion of a namespace looks like from inside, among others.
_TAKEN = {"JobDeleted", "PodDeleted", "PodLost"}


class Executor:
    """Writes, to the row and to the cluster."""

    def __init__(
        self,
        database: Database,
        kubernetes: Kubernetes,
        cache: Cache,
        queue: WorkQueue,
        views: Views,
        logs: PodLogs,
        *,
        namespace: str,
        worker: WorkerSettings,
    ) -> None:
        self._database = database
        self._kubernetes = kubernetes
        self._cache = cache
        self._queue = queue
        self._views = views
        self._logs = logs
        self._namespace = namespace
        self._worker = worker
        self._events = Events(kubernetes, namespace=namespace)

    async def execute(self, action: actions.Action, view: View) -> None:
        """Do it; a second time changes nothing."""
        row, name = view.row, view.hybridjob["metadata"]["name"]
        match action:
            case actions.CountUp():
                await catch_up(self._database, view.hybridjob)
                self._queue.add(name)
            case actions.CreateJob():
                await self._create_job(view)
            case actions.BindJob(uid):
                async with self._database.connection() as connection:
                    await attempts.bind_kubernetes_job(connection, row.job_id, row.attempt, uid)
            case actions.OwnJob():
                await self._own_job(view)
            case actions.RecordStart(started_at):
                await self._record_start(view, started_at)
                self._queue.add(name)
            case actions.RecordEnd(end, remove_job):
                changed = await self.record_end(view, end)
                # Unchanged, it may have started after all: the next look knows.
                wanted = end.outcome is Outcome.NEVER_STARTED and not changed
                if remove_job and view.job is not None and not wanted:
                    await self.delete(JOBS, view.job)
                self._queue.add(name)
            case actions.AddEvidence(end):
                end = await self._logs.added(view, end)
                async with self._database.connection() as connection:
                    await add_evidence(connection, row.job_id, row.attempt, end)
                self._logs.recorded(view)
            case actions.RemoveJob(job):
                await self.delete(JOBS, job)
            case actions.RequestCancel():
                async with self._database.connection() as connection:
                    await request_cancel(connection, row.job_id)
                self._queue.add(name)
            case actions.EndPod():
                await self._end_pod(view)
            case actions.ReleaseHybridJob():
                await self._release(view)
            case actions.PatchStatus():
                await self._patch(view.hybridjob, self._status(view))
            case actions.Wait(delay):
                self._queue.add_after(name, delay.total_seconds())
            case _ as unreachable:
                assert_never(unreachable)

    async def record_end(self, view: View, end: AttemptEnd) -> bool:
        """Record how the open attempt ended, log and all; whether that changed anything."""
        row = view.row
        if end.reason in _TAKEN and await namespace_goes(self._kubernetes, self._namespace):
            end = replace(end, reason=NAMESPACE_TERMINATING, message=NAMESPACE_GOES)
        end = await self._logs.added(view, end)
        recorded = await record_final_outcome(self._database, row.job_id, row.attempt, end)
        self._logs.recorded(view)
        if recorded is None or not recorded.changed:
            return False
        await self._events.ended(view.hybridjob, row.attempt, end)
        log.info(
            "attempt ended",
            type=row.type,
            outcome=end.outcome.value,
            reason=end.reason,
            status=recorded.status.value,
        )
        return True

    async def delete(
        self, resource: Resource, body: Object, resource_version: str | None = None
    ) -> None:
        """Delete this very object, at that version if one is given."""
        metadata = body["metadata"]
        try:
            await self._kubernetes.delete(
                resource,
                self._namespace,
                metadata["name"],
                uid=metadata["uid"],
                resource_version=resource_version,
            )
        except Conflict:
            return  # another object has the name now, or it has changed, which is an event

    async def refuse(self, hybridjob: Object, reason: str, message: str) -> None:
        """Show that the HybridJob is not accepted, and why."""
        now = datetime.now(UTC)
        await self._patch(
            hybridjob, not_accepted_status(hybridjob, reason=reason, message=message, now=now)
        )

    async def _create_job(self, view: View) -> None:
        row, hybridjob = view.row, view.hybridjob
        assert view.spec is not None
        uid, name = hybridjob["metadata"]["uid"], hybridjob["metadata"]["name"]
        async with self._database.connection() as connection:
            bound = await attempts.bind_hybridjob(
                connection,
                row.job_id,
                row.attempt,
                namespace=self._namespace,
                name=name,
                uid=uid,
            )
        if bound != uid:
            self._queue.add(name)
            return
        body = kubernetes_job(
            owner=hybridjob,
            job_id=row.job_id,
            attempt=row.attempt,
            spec=view.spec,
            deadline_seconds=row.deadline_seconds,
            payload=row.payload,
            traceparent=row.traceparent,
            worker=self._worker,
        )
        try:
            job = await self._kubernetes.create(JOBS, self._namespace, body)
        except AlreadyExists:
            # Ours, made before a crash, or foreign: the next look tells by its owner.
            if (known := await self._views.job(body["metadata"]["name"])) is not None:
                self._cache.add_job(known)
            self._queue.add(name)
            return
        except Conflict as error:
            raise ClusterUnavailable(error.message) from error  # many count by one quota
        except ApiError as error:
            if error.status in _NO_REFUSAL:
                raise
            await self._refused_job(view, error)
            return
        except ClusterUnavailable as error:
            if "failed calling webhook" in error.detail:
                told = "WebhookUnavailable", error.detail
                await self._patch(hybridjob, self._status(replace(view, told=told)))
            raise
        self._cache.add_job(job)
        async with self._database.connection() as connection:
            await attempts.bind_kubernetes_job(
                connection, row.job_id, row.attempt, job["metadata"]["uid"]
            )
        log.info("attempt begun", type=row.type)

    async def _refused_job(self, view: View, error: ApiError) -> None:
        """By a quota or a policy: it may pass, so wait for it as long as a start may take."""
        assert view.spec is not None
        name = view.hybridjob["metadata"]["name"]
        otherwise = "InvalidJob" if isinstance(error, Invalid) else "CreateForbidden"
        reason, message = why_refused(error.message, otherwise)
        if reason == "InvalidJob":
            await self.record_end(view, AttemptEnd(Outcome.PERMANENT, reason, message))
            self._queue.add(name)
            return
        limit = timedelta(seconds=view.spec.start_deadline_seconds)
        waited = datetime.now(UTC) - (view.row.claimed_at or datetime.now(UTC))
        # A namespace that goes takes the HybridJob along, and that ends the attempt.
        if waited >= limit and reason != NAMESPACE_TERMINATING:
            text = f"no Job was accepted within {int(limit.total_seconds())} s: {message}"
            await self.record_end(view, AttemptEnd(Outcome.NEVER_STARTED, reason, text))
            self._queue.add(name)
            return
        await self._patch(view.hybridjob, self._status(replace(view, told=(reason, message))))
        self._queue.add_after(name, _REFUSED_RETRY.total_seconds())

    async def _own_job(self, view: View) -> None:
        assert view.job is not None
        metadata = view.job["metadata"]
        owner = {
            "uid": metadata["uid"],
            "labels": {names.HYBRIDJOB: view.hybridjob["metadata"]["name"]},
            "ownerReferences": [owner_reference(view.hybridjob)],
        }
        with suppress(NotFound, Conflict):
            await self._kubernetes.patch(
                JOBS, self._namespace, metadata["name"], {"metadata": owner}
            )

    async def _record_start(self, view: View, started_at: datetime) -> None:
        assert view.pod is not None
        async with self._database.connection() as connection:
            await attempts.start(
                connection,
                view.row.job_id,
                view.row.attempt,
                pod_name=view.pod["metadata"]["name"],
                pod_uid=view.pod["metadata"]["uid"],
                started_at=started_at,
            )
        metrics.count_start(view.row.claimed_at, started_at)

    async def _end_pod(self, view: View) -> None:
        assert view.pod is not None
        body = {"spec": {"activeDeadlineSeconds": 1}}
        with suppress(NotFound):
            await self._kubernetes.patch(PODS, self._namespace, view.pod["metadata"]["name"], body)

    async def _release(self, view: View) -> None:
        metadata = view.hybridjob["metadata"]
        async with self._database.connection() as connection:
            await forget_uid(connection, view.row.job_id, metadata["uid"])
        # Not one that the dispatcher has said the next attempt to meanwhile.
        await self.delete(HYBRIDJOBS, view.hybridjob, metadata["resourceVersion"])

    def _status(self, view: View) -> Object:
        return hybridjob_status(
            view.row,
            view.hybridjob,
            job=view.job,
            pod=view.pod,
            now=datetime.now(UTC),
            told=view.told,
        )

    async def _patch(self, hybridjob: Object, status: Object) -> None:
        """Write the status, if it says anything new."""
        old = hybridjob.get("status") or {}
        if {key: value for key, value in {**old, **status}.items() if value is not None} == old:
            return
        name, version = hybridjob["metadata"]["name"], hybridjob["metadata"]["resourceVersion"]
        # Not by the uid, which the API server does not look at in a write of the status.
        body = {"metadata": {"resourceVersion": version}, "status": status}
        try:
            patched = await self._kubernetes.patch(
                HYBRIDJOBS, self._namespace, name, body, subresource="status"
            )
        except (NotFound, Conflict):
            return  # gone, or another one has the name now, or it has changed, which is an event
        self._cache.replace_hybridjob(hybridjob, patched)
