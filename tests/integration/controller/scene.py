"""One namespace, one database, and the operator's parts, driven by hand: no watch, no race."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from hybridjobs.controller.cache import Cache
from hybridjobs.controller.reconcile import Reconciler
from hybridjobs.controller.sweep import Sweep
from hybridjobs.controller.types import TypeMirror
from hybridjobs.controller.workqueue import WorkQueue
from hybridjobs.dispatch.cluster import ClusterRuntime
from hybridjobs.dispatch.loop import Dispatcher
from hybridjobs.ids import new_id
from hybridjobs.kube.client import HYBRIDJOB_TYPES, HYBRIDJOBS, Kubernetes
from hybridjobs.kube.manifests import WorkerSettings
from hybridjobs.model import AttemptEnd
from hybridjobs.settings import OperatorSettings
from hybridjobs.store.database import Database
from hybridjobs.store.jobs import Job, get_job
from hybridjobs.store.outcome import record_outcome
from tests.cluster import Cluster, current
from tests.waiting import eventually

_CRDS = Path(__file__).parents[3] / "manifests" / "crds"
_TYPE = {
    "apiVersion": "hybridjobs.dev/v1alpha1",
    "kind": "HybridJobType",
    "metadata": {"name": "test-long"},
    "spec": {"type": "test/long", "retry": {"limit": 2, "baseSeconds": 1, "maxSeconds": 2}},
}
_INSERT = (
    "INSERT INTO hybridjobs.background_jobs (id, type, max_retries) VALUES (%s, 'test/long', 2)"
)


@contextmanager
def namespace_of_its_own(name: str) -> Iterator[Cluster]:
    """A namespace with our definitions; it goes in the background."""
    cluster = current()
    _kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", str(_CRDS))
    for definition in ("hybridjobs", "hybridjobtypes", "hybridjobschedules"):
        condition = ("--for=condition=Established", f"crd/{definition}.hybridjobs.dev")
        _kubectl(cluster, "wait", *condition, "--timeout=60s")
    _kubectl(cluster, "create", "namespace", name)
    try:
        # Until then no pod may be made there.
        account = ("serviceaccount/default", "--for=create", "--timeout=60s")
        _kubectl(cluster, "wait", "--namespace", name, *account)
        yield cluster
    finally:
        _kubectl(cluster, "delete", "namespace", name, "--wait=false", "--ignore-not-found")


def _kubectl(cluster: Cluster, *arguments: str) -> None:
    subprocess.run(
        [cluster.kubectl, *arguments], env=cluster.environment, check=True, capture_output=True
    )


@dataclass
class Scene:
    """What a test works with. Its HybridJobs are known to the cache when `see` has told it."""

    namespace: str
    database: Database
    kubernetes: Kubernetes
    cache: Cache
    queue: WorkQueue
    mirror: TypeMirror
    reconciler: Reconciler
    sweep: Sweep
    dispatcher: Dispatcher
    settings: OperatorSettings

    async def dispatched(self, job_id: UUID | None = None) -> UUID:
        """A job whose HybridJob exists."""
        job_id = job_id or new_id()
        await self.sql(_INSERT, job_id)
        await self.dispatcher.dispatch_once()
        return job_id

    async def name_of(self, job_id: UUID) -> str:
        name = (await self.job(job_id)).resource_name
        assert name is not None
        return name

    async def job(self, job_id: UUID) -> Job:
        async with self.database.connection() as connection:
            job = await get_job(connection, job_id)
        assert job is not None
        return job

    async def job_named(self, name: str) -> Job:
        """The job of a HybridJob that has been adopted."""
        async with self.database.connection() as connection:
            cursor = await connection.execute(
                "SELECT id FROM hybridjobs.background_jobs WHERE resource_name = %s", [name]
            )
            [row] = await cursor.fetchall()
        return await self.job(row["id"])

    async def count(self) -> int:
        """How many rows there are."""
        async with self.database.connection() as connection:
            cursor = await connection.execute(
                "SELECT count(*) AS n FROM hybridjobs.background_jobs"
            )
            [row] = await cursor.fetchall()
        return int(row["n"])

    async def see(self, name: str) -> dict[str, Any]:
        """The HybridJob as it is now, told to the cache."""
        body = await self.kubernetes.get(HYBRIDJOBS, self.namespace, name)
        self.cache.put_hybridjob(body)
        return body

    async def reconciled(self, name: str) -> dict[str, Any]:
        """The HybridJob after one look at it."""
        await self.see(name)
        await self.reconciler.reconcile(name)
        return await self.see(name)

    async def made_by_hand(self, name: str, **spec: Any) -> None:
        body = {
            "apiVersion": "hybridjobs.dev/v1alpha1",
            "kind": "HybridJob",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }
        await self.kubernetes.create(HYBRIDJOBS, self.namespace, body)

    async def orphan(self, name: str) -> None:
        """Delete the HybridJob and leave its Job, unseen by the operator."""
        arguments = ("delete", "hybridjob", name, "--namespace", self.namespace, "--cascade=orphan")
        await asyncio.to_thread(_kubectl, current(), *arguments)

    async def delete(self, name: str) -> None:
        """Delete the HybridJob and its Job, unseen by the operator."""
        uid = (await self.see(name))["metadata"]["uid"]
        await self.kubernetes.delete(HYBRIDJOBS, self.namespace, name, uid=uid)

    @asynccontextmanager
    async def held_up(self, name: str) -> AsyncIterator[None]:
        """A deletion of the HybridJob waits meanwhile, as for a finalizer."""
        held = {"metadata": {"finalizers": ["test.example/hold"]}}
        await self.kubernetes.patch(HYBRIDJOBS, self.namespace, name, held)
        try:
            yield
        finally:
            free = {"metadata": {"finalizers": None}}
            await self.kubernetes.patch(HYBRIDJOBS, self.namespace, name, free)

    async def settle(self) -> None:
        """As if what is dispatched had been so for a while."""
        await self.sql(
            "UPDATE hybridjobs.job_attempts SET claimed_at = claimed_at - interval '1 minute',"
            " dispatched_at = dispatched_at - interval '1 minute'"
        )

    async def end(self, job_id: UUID, end: AttemptEnd, attempt: int = 1) -> None:
        async with self.database.transaction() as connection:
            await record_outcome(connection, job_id, attempt, end)

    async def sql(self, statement: str, *parameters: object) -> None:
        async with self.database.connection() as connection:
            await connection.execute(statement.encode(), parameters)

    async def somebody_waits(self) -> None:
        """Until a statement waits for a row that another transaction holds."""
        waiting = (
            "SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        async with self.database.connection() as connection:

            async def found() -> int:
                return (await connection.execute(waiting)).rowcount

            await eventually(found)

    @asynccontextmanager
    async def locked(self, job_id: UUID) -> AsyncIterator[None]:
        """Somebody else's transaction holds the job's row."""
        lock = "SELECT FROM hybridjobs.background_jobs WHERE id = %s FOR UPDATE"
        async with self.database.transaction() as connection:
            await connection.execute(lock, [job_id])
            yield

    def sweep_of(self, kubernetes: Kubernetes) -> Sweep:
        """One by another client."""
        mirror = TypeMirror(
            self.database, kubernetes, self.cache, self.queue, namespace=self.namespace
        )
        return Sweep(self.database, kubernetes, self.cache, self.queue, mirror, self.settings)

    async def due(self) -> list[str]:
        """The names that wait for a look."""
        found = []
        while len(self.queue):
            found.append(await self.queue.get())
            self.queue.done(found[-1])
        return found


async def configured(cluster: Cluster) -> Configuration:
    """The administrator's credentials for the cluster."""
    configuration = Configuration()
    configuration.client_session_kwargs = {"trust_env": False}
    await config.load_kube_config(
        config_file=str(cluster.kubeconfig), client_configuration=configuration
    )
    return configuration


@asynccontextmanager
async def opened(cluster: Cluster, namespace: str, url: str) -> AsyncIterator[Scene]:
    configuration = await configured(cluster)
    database = Database(url, size=4)
    kubernetes = Kubernetes(configuration, field_manager="hybridjobs-test")
    settings = OperatorSettings(
        database_url=url,
        namespace=namespace,
        worker_image="hybridjobs:none",
        worker_api_url="http://none:8082",
        keep_failed_seconds=0,
        keep_succeeded_seconds=0,
    )
    cache, queue = Cache(), WorkQueue()
    async with database, kubernetes:
        mirror = TypeMirror(database, kubernetes, cache, queue, namespace=namespace)
        worker = WorkerSettings("hybridjobs:none", "Never", "default", "http://none", "x", None)
        reconciler = Reconciler(
            database, kubernetes, cache, queue, namespace=namespace, worker=worker
        )
        await kubernetes.apply(HYBRIDJOB_TYPES, namespace, _TYPE)
        await mirror.read_all()
        yield Scene(
            namespace,
            database,
            kubernetes,
            cache,
            queue,
            mirror,
            reconciler,
            Sweep(database, kubernetes, cache, queue, mirror, settings),
            Dispatcher(
                database, ClusterRuntime(database, kubernetes, namespace=namespace), window=50
            ),
            settings,
        )
