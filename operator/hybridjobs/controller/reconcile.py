"""Works off the queue, one name at a time: reads the row, asks `decide`, has it done.

The work queue never runs one name in two workers, and every write is guarded where it lands, so
that a crash between any two lines here is repaired by the next call.
"""

import asyncio
from datetime import UTC, datetime

import structlog
from structlog.contextvars import bind_contextvars, clear_contextvars

from hybridjobs.controller import metrics
from hybridjobs.controller.adoption import adopt
from hybridjobs.controller.cache import Cache, Object
from hybridjobs.controller.decide import (
    bears_its_name,
    decide,
    is_cancelled_by_deletion,
    is_the_rows,
)
from hybridjobs.controller.definitions import definition_goes, namespace_goes
from hybridjobs.controller.execute import NAMESPACE_GOES, Executor
from hybridjobs.controller.logs import PodLogs
from hybridjobs.controller.observe import NAMESPACE_TERMINATING
from hybridjobs.controller.views import Views
from hybridjobs.controller.workqueue import WorkQueue
from hybridjobs.errors import AttemptClosed, ClusterUnavailable, DatabaseUnavailable
from hybridjobs.kube.client import HYBRIDJOBS, JOBS, Kubernetes, TooManyRequests
from hybridjobs.kube.identity import is_over, job_id
from hybridjobs.kube.manifests import WorkerSettings
from hybridjobs.model import AttemptEnd, Outcome
from hybridjobs.payload_schemas import PayloadSchemas
from hybridjobs.store.attempts import JobState
from hybridjobs.store.database import Database
from hybridjobs.store.outcome import request_cancel

log = structlog.get_logger(__name__)

_DELETIONS_KEPT = 1000


class Reconciler:
    """Works off the queue; `namespace` is the jobs namespace."""

    def __init__(
        self,
        database: Database,
        kubernetes: Kubernetes,
        cache: Cache,
        queue: WorkQueue,
        *,
        namespace: str,
        worker: WorkerSettings,
    ) -> None:
        self._database = database
        self._kubernetes = kubernetes
        self._cache = cache
        self._queue = queue
        self._namespace = namespace
        self._schemas = PayloadSchemas()
        self._logs = PodLogs(kubernetes, cache, namespace=namespace)
        self._views = Views(database, kubernetes, cache, namespace=namespace)
        self._executor = Executor(
            database,
            kubernetes,
            cache,
            queue,
            self._views,
            self._logs,
            namespace=namespace,
            worker=worker,
        )

    async def run(self, workers: int) -> None:
        """Work until cancelled, beginning with all that is known."""
        for name in self._cache.deleted:
            self._queue.add(name)
        for name in self._cache.hybridjobs:
            self._queue.add(name, behind=True)
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work())

    async def follow(self) -> None:
        """Only keep up with what happens, while another replica acts on it; until cancelled."""
        while True:
            self._queue.done(await self._queue.get())
            # Those of the last seconds, which it may have left undone.
            self._cache.forget_deletions(_DELETIONS_KEPT)

    async def _work(self) -> None:
        while True:
            name = await self._queue.get()
            self._turn_to(name)
            try:
                with metrics.reconciling():
                    await self.reconcile(name)
            except AttemptClosed:
                self._queue.retry(name)  # somebody else moved the job on; look at it afresh
            except (ClusterUnavailable, DatabaseUnavailable, TooManyRequests) as error:
                seconds = self._queue.retry(name)
                log.warning("waits", error=str(error), seconds=seconds)
            except Exception:
                seconds = self._queue.retry(name)
                log.exception("reconcile failed", seconds=seconds)
            else:
                self._queue.succeeded(name)
            finally:
                self._queue.done(name)

    def _turn_to(self, name: str) -> None:
        """What this worker logs is about this HybridJob from now on."""
        clear_contextvars()
        bind_contextvars(hybridjob=name)
        known = self._cache.hybridjobs.get(name) or next(
            iter(self._cache.deleted.get(name, ())), None
        )
        if known is not None:
            bind_contextvars(job_id=str(job_id(known)))

    async def reconcile(self, name: str) -> None:
        """Bring one HybridJob, its Job and its row together."""
        while gone := self._cache.deleted.get(name):
            await self._deleted(gone[0])
            del gone[0]
            if not gone:
                del self._cache.deleted[name]
        hybridjob = self._cache.hybridjobs.get(name)
        if hybridjob is None:
            return
        if "deletionTimestamp" in hybridjob["metadata"]:
            # Asked for, and held up by a finalizer, as foreground deletion is by the Job.
            await self._deleted(hybridjob)
            return
        row = await self._views.row_of(hybridjob)
        if row is None:
            await self._without_row(hybridjob)
            return
        if not is_the_rows(row, hybridjob):
            await self._not_the_rows(hybridjob, row)
            return
        bind_contextvars(attempt=row.attempt)
        view = await self._views.view(hybridjob, row)
        await self._logs.read_early(view)
        for action in decide(view, datetime.now(UTC)):
            await self._executor.execute(action, view)

    async def _not_the_rows(self, hybridjob: Object, row: JobState) -> None:
        """A HybridJob of a job that has, or had, another one."""
        if row.status.is_terminal and bears_its_name(row, hybridjob):
            # By a dispatcher that stopped after its claim, and went on when the job was over; or
            # of before the database was restored.
            version = hybridjob["metadata"]["resourceVersion"]
            await self._executor.delete(HYBRIDJOBS, hybridjob, version)
            return
        text = f"job {row.job_id} belongs to another HybridJob"
        await self._executor.refuse(hybridjob, "NotOurs", text)

    async def _without_row(self, hybridjob: Object) -> None:
        name = hybridjob["metadata"]["name"]
        if is_over(hybridjob):
            return  # it ran, and retention has taken its row since
        refusal = await adopt(self._database, self._cache.types, self._schemas, hybridjob)
        if refusal is None:
            log.info("HybridJob adopted")
            self._queue.add(name)
            return
        await self._executor.refuse(hybridjob, refusal.reason, refusal.message)
        if refusal.again_after_seconds is not None:
            self._queue.add_after(name, refusal.again_after_seconds)

    async def _deleted(self, hybridjob: Object) -> None:
        """A HybridJob is gone: by a user, who means cancel, or with its namespace or CRD."""
        row = await self._views.row_of(hybridjob)
        if row is None or not is_cancelled_by_deletion(row, hybridjob):
            return
        bind_contextvars(attempt=row.attempt)
        view = await self._views.view(hybridjob, row)
        if await namespace_goes(self._kubernetes, self._namespace):
            # The job waits for the namespace to be there again: nobody has cancelled it.
            end = AttemptEnd(Outcome.LOST, NAMESPACE_TERMINATING, NAMESPACE_GOES)
        elif await definition_goes(self._kubernetes, HYBRIDJOBS):
            return
        else:
            end = AttemptEnd(Outcome.CANCELLED, "HybridJobDeleted", "its HybridJob was deleted")
            async with self._database.connection() as connection:
                await request_cancel(connection, row.job_id, reason="HybridJobDeleted")
        if row.open_attempt is not None:
            await self._executor.record_end(view, end)
            if view.job is not None:
                await self._executor.delete(JOBS, view.job)  # left alone by a deletion that orphans
