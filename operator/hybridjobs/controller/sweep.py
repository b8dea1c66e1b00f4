"""What no event tells: rows whose HybridJob vanished while nobody watched, and spent objects."""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from hybridjobs.controller.cache import Cache, Object, hybridjob_of
from hybridjobs.controller.observe import job_id, time
from hybridjobs.controller.types import TypeMirror
from hybridjobs.controller.workqueue import WorkQueue
from hybridjobs.errors import ClusterUnavailable, DatabaseUnavailable
from hybridjobs.kube import names
from hybridjobs.kube.client import HYBRIDJOBS, JOBS, ApiError, Conflict, Kubernetes
from hybridjobs.model import AttemptEnd, Outcome, Status
from hybridjobs.settings import OperatorSettings
from hybridjobs.store.attempts import OpenDispatch, open_dispatches, statuses
from hybridjobs.store.database import Database
from hybridjobs.store.outcome import record_outcome
from hybridjobs.store.resources import forget_spent

log = structlog.get_logger(__name__)

# A HybridJob younger than this may not be in a list that was read a moment before it.
_SETTLED = timedelta(seconds=30)


class Sweep:
    """Compares Postgres with the cluster, every `settings.sweep_seconds`."""

    def __init__(
        self,
        database: Database,
        kubernetes: Kubernetes,
        cache: Cache,
        queue: WorkQueue,
        mirror: TypeMirror,
        settings: OperatorSettings,
    ) -> None:
        self._database = database
        self._kubernetes = kubernetes
        self._cache = cache
        self._queue = queue
        self._mirror = mirror
        self._settings = settings
        self._missing: set[str] = set()  # uids that the sweep before missed too

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await self.once()
            except (ClusterUnavailable, DatabaseUnavailable, ApiError) as error:
                log.warning("sweep put off", error=str(error))
            await asyncio.sleep(self._settings.sweep_seconds)

    async def once(self) -> None:
        """One comparison, both ways."""
        await self._mirror.read_all()
        # The rows first: whatever is dispatched after this is in the list that follows, or newer.
        async with self._database.connection() as connection:
            dispatched = await open_dispatches(connection, settled=_SETTLED)
        hybridjobs = await self._kubernetes.list(HYBRIDJOBS, self._settings.namespace)
        await self._forget_jobs_gone()
        live = {body["metadata"]["uid"] for body in hybridjobs}
        missing = set()
        for attempt in dispatched:
            uid = attempt.hybridjob_uid
            if attempt.settled and uid is not None and uid not in live:
                missing.add(uid)
                if uid in self._missing:
                    await self._lost(attempt)
            elif attempt.resource_name is not None:
                # For what no event tells, such as a cancel by the API.
                self._queue.add(attempt.resource_name)
        self._missing = missing
        await self._look_at_changed(hybridjobs)
        await self._delete_spent(hybridjobs)

    async def _forget_jobs_gone(self) -> None:
        """A watch that was interrupted never tells of what was deleted meanwhile."""
        known = self._cache.jobs()
        listed = await self._kubernetes.list(
            JOBS, self._settings.namespace, labels=names.SELECTOR, metadata_only=True
        )
        live = {body["metadata"]["uid"] for body in listed}
        for body in known.values():
            if body["metadata"]["uid"] not in live:
                self._cache.remove_job(body)
                if (name := hybridjob_of(body)) is not None:
                    self._queue.add(name)

    async def _look_at_changed(self, hybridjobs: list[Object]) -> None:
        """Those whose row was changed by others: cancelled while queued, or run anew by hand."""
        by_id = {job_id(body): body for body in hybridjobs}
        async with self._database.connection() as connection:
            found = await statuses(connection, by_id)
        for id_, status in found.items():
            body = by_id[id_]
            if (body.get("status") or {}).get("state") != status:
                self._queue.add(body["metadata"]["name"])

    async def _lost(self, attempt: OpenDispatch) -> None:
        # Missed twice, so that a deletion by a user, which means cancel, is acted on before.
        end = AttemptEnd(
            Outcome.LOST, "HybridJobLost", "its HybridJob vanished while nobody watched"
        )
        async with self._database.transaction() as connection:
            await record_outcome(connection, attempt.job_id, attempt.attempt, end)
        if attempt.resource_name is not None:
            self._cache.hybridjobs.pop(attempt.resource_name, None)
        log.warning("HybridJob lost", job_id=str(attempt.job_id), attempt=attempt.attempt)

    async def _delete_spent(self, hybridjobs: list[Object]) -> None:
        now = datetime.now(UTC)
        finished = [
            (finished_at, body)
            for body in hybridjobs
            if (finished_at := _recorded_at(body)) is not None
        ]
        finished.sort(key=lambda pair: pair[0], reverse=True)
        spent = [
            body
            for place, (finished_at, body) in enumerate(finished)
            if now - finished_at > self._life(body, place)
        ]
        if not spent:
            return
        async with self._database.connection() as connection:
            deletable = await forget_spent(
                connection, {body["metadata"]["uid"]: job_id(body) for body in spent}
            )
        for body in spent:
            if body["metadata"]["uid"] in deletable:
                await self._delete(body)

    def _life(self, body: Object, place: int) -> timedelta:
        """How long a finished HybridJob stays; `place` counts the newer finished ones."""
        settings, spec = self._settings, body["spec"]
        if "ttlSecondsAfterFinished" in spec:
            return timedelta(seconds=spec["ttlSecondsAfterFinished"])
        if not names.is_dispatched(body):
            return timedelta.max  # made by hand, and theirs to delete
        if place >= settings.keep_finished:
            return timedelta(0)
        succeeded = body["status"]["state"] == Status.COMPLETED
        return timedelta(
            seconds=settings.keep_succeeded_seconds if succeeded else settings.keep_failed_seconds
        )

    async def _delete(self, body: Object) -> None:
        metadata = body["metadata"]
        try:
            await self._kubernetes.delete(
                HYBRIDJOBS,
                self._settings.namespace,
                metadata["name"],
                uid=metadata["uid"],
                # Not one that was dispatched once more since the list was read.
                resource_version=metadata["resourceVersion"],
            )
        except Conflict:
            return


def _recorded_at(body: Object) -> datetime | None:
    """When its outcome was committed; None for one that is not over."""
    for each in (body.get("status") or {}).get("conditions") or []:
        if each["type"] == "OutcomeRecorded" and each["status"] == "True":
            return time(each["lastTransitionTime"])
    return None
