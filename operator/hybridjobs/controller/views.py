"""What `decide` looks at: from the row and the cache, and by asking where the cache may lag."""

from hybridjobs.controller.cache import Cache, Object
from hybridjobs.controller.decide import View, is_begun
from hybridjobs.controller.holds import Holds
from hybridjobs.controller.observe import is_ended, is_finished, is_suspended
from hybridjobs.kube import names
from hybridjobs.kube.client import JOBS, PODS, Kubernetes, NotFound
from hybridjobs.kube.identity import job_id
from hybridjobs.store import attempts
from hybridjobs.store.attempts import JobState
from hybridjobs.store.database import Database


class Views:
    """Reads; changes nothing."""

    def __init__(
        self, database: Database, kubernetes: Kubernetes, cache: Cache, *, namespace: str
    ) -> None:
        self._database = database
        self._kubernetes = kubernetes
        self._cache = cache
        self._namespace = namespace
        self._holds = Holds(kubernetes, namespace=namespace)

    async def row_of(self, hybridjob: Object) -> JobState | None:
        """The job's row; None where there is none, or none any more."""
        async with self._database.connection() as connection:
            return await attempts.read_job(connection, job_id(hybridjob))

    async def view(self, hybridjob: Object, row: JobState) -> View:
        """The HybridJob with its row, and what belongs to its last attempt."""
        job_type = self._cache.types.get(row.type)
        job = pod = previous = None
        if row.attempt:
            previous = self._cache.job(names.job_name(row.job_id, row.attempt - 1))
            name = names.job_name(row.job_id, row.attempt)
            job = self._cache.job(name)
            if job is None and row.job_uid is not None and row.open_attempt is not None:
                # The watch may lag behind, or only just have begun: ask before calling it gone.
                job = await self.job(name)
            pod = self._cache.pod_of(name)
            if is_suspended(job) and is_begun(row, pod):
                # Taken away, or just resumed and the watch of Jobs is behind.
                job = await self.job(name)
            if job is not None and is_finished(job) and not is_ended(pod):
                pod = await self._pod_of(name) or pod
        told = None
        unclear = not is_finished(job) or pod is None
        if job is not None and row.open_attempt is not None and unclear:
            told = await self._holds.told(job, pod, begun=is_begun(row, pod))
        spec = job_type.spec if job_type else None
        return View(row, hybridjob, spec, job, pod, previous, told)

    async def job(self, name: str) -> Object | None:
        """The Kubernetes Job of that name, as it is now."""
        try:
            return await self._kubernetes.get(JOBS, self._namespace, name)
        except NotFound:
            return None

    async def _pod_of(self, job_name: str) -> Object | None:
        selector = f"batch.kubernetes.io/job-name={job_name}"
        pods = await self._kubernetes.list(PODS, self._namespace, labels=selector)
        return pods[0] if pods else None
