"""The programs as they are, on a cluster and a database that answer when it is their turn."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.controller.cache import Cache
from hybridjobs.controller.reconcile import Reconciler
from hybridjobs.controller.sweep import Sweep
from hybridjobs.controller.types import TypeMirror
from hybridjobs.controller.watch import feeding
from hybridjobs.controller.workqueue import WorkQueue
from hybridjobs.dispatch.cluster import ClusterRuntime
from hybridjobs.dispatch.loop import Dispatcher
from hybridjobs.errors import ClusterUnavailable, DatabaseUnavailable
from hybridjobs.kube.client import (
    CRDS,
    EVENTS,
    HYBRIDJOB_TYPES,
    NAMESPACES,
    PODS,
    Kubernetes,
    Resource,
)
from hybridjobs.kube.manifests import WorkerSettings
from hybridjobs.settings import OperatorSettings
from hybridjobs.store.database import Database
from tests.simulation.cluster import WATCHED, ApiServer, Object
from tests.simulation.stores import Store
from tests.simulation.virtual import Loop
from tests.simulation.watch import Watch

Answer = TypeVar("Answer")
Dependency = Literal["database", "cluster"]
# How a request goes: well; not at all; done, but its answer is lost; done, its answer comes late.
Way = Literal["well", "refused", "unanswered", "late"]

NAMESPACE = "jobs"
_AWAY = {"database": DatabaseUnavailable, "cluster": ClusterUnavailable}


@dataclass(slots=True)
class Request:
    """Something asked of the outside, which has not happened yet."""

    process: "Process"
    dependency: Dependency
    what: str
    future: asyncio.Future[Way]


class Process:
    """Tasks that live and die together. A dead one does nothing any more, a paused one waits."""

    def __init__(self, name: str, loop: Loop) -> None:
        self.name = name
        self.loop = loop
        self.requests: list[Request] = []
        self.paused = False
        self.dead = False
        self._tasks: list[asyncio.Task[Any]] = []

    def begin(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run this until the process is killed."""
        with self.loop.current():
            self.create(coroutine)
        self.loop.settle()

    def create(self, coroutine: Coroutine[Any, Any, object]) -> asyncio.Task[Any]:
        """As `begin`, from within the loop."""
        task = self.loop.create_task(coroutine)
        task.add_done_callback(self._on_done)
        self._tasks.append(task)
        return task

    def spawn(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run this to its end, or until the process is killed."""
        with self.loop.current():
            task = self.loop.create_task(coroutine)
            task.add_done_callback(self._on_end)
            self._tasks.append(task)

    def stop(self) -> None:
        """Killed: not one more request is made."""
        self.dead = True
        self.requests.clear()
        for task in self._tasks:
            task.cancel()
        self.loop.settle()
        for task in self._tasks:
            if not task.done():
                self.loop.errors.append(f"{self.name} does not end")

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            self.loop.errors.append(f"{self.name} ended by itself: {task.exception()!r}")

    def _on_end(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._on_done(task)
        if not self.dead:
            self._tasks.remove(task)

    async def turn(self, dependency: Dependency, what: str) -> Way:
        """Wait for a turn; CancelledError in a process that is dead."""
        if not self.dead:
            future: asyncio.Future[Way] = self.loop.create_future()
            self.requests.append(Request(self, dependency, what, future))
            way = await future
            if not self.dead:
                return way
        raise asyncio.CancelledError

    async def ask(self, dependency: Dependency, what: str, effect: Callable[[], Answer]) -> Answer:
        """Have something done outside, which may go wrong in every way."""
        way = await self.turn(dependency, what)
        if way == "refused":
            raise _AWAY[dependency](f"{what}: refused")
        try:
            return effect()
        finally:
            if way == "unanswered":
                raise _AWAY[dependency](f"{what}: no answer")
            if way == "late":
                await self.turn(dependency, f"{what}: the answer")


class StoreConnection:
    """A connection of the process's; in a transaction (`process` None) nobody comes between."""

    def __init__(self, store: Store, process: Process | None) -> None:
        self._store = store
        self._process = process

    async def execute(self, query: str | bytes, given: Any = None) -> Any:
        statement = query.decode() if isinstance(query, bytes) else query
        if self._process is None:
            return self._store.execute(statement, given)
        what = " ".join(statement.split())[:60]
        return await self._process.ask(
            "database", what, lambda: self._store.execute(statement, given)
        )


class SimulatedDatabase(Database):
    """The process's way to the store."""

    def __init__(self, store: Store, process: Process) -> None:
        self._store = store
        self._process = process

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[DictRow]]:
        yield StoreConnection(self._store, self._process)  # type: ignore[misc]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection[DictRow]]:
        way = await self._process.turn("database", "a transaction")
        if way == "refused":
            raise DatabaseUnavailable("refused")
        with self._store.transaction():
            yield StoreConnection(self._store, None)  # type: ignore[misc]
        if way == "unanswered":
            raise DatabaseUnavailable("no answer to a commit")
        if way == "late":
            await self._process.turn("database", "the answer to a commit")


class SimulatedKubernetes(Kubernetes):
    """The process's way to the API server; `writes` are those that changed something."""

    def __init__(self, server: ApiServer, process: Process, nodes: "Logs") -> None:
        self._server = server
        self._process = process
        self._nodes = nodes
        self.writes: list[str] = []
        self.deleting: Callable[[str, Object], None] = lambda _kind, _body: None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        def create() -> Object:
            self._server.refuse(resource.plural, body)
            return self._server.create(resource.plural, body)

        return await self._write(f"create {body['metadata']['name']}", create)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        if resource in (CRDS, NAMESPACES):
            return await self._process.ask("cluster", f"get {name}", lambda: {"metadata": {}})
        return await self._process.ask(
            "cluster", f"get {name}", lambda: self._server.get(resource.plural, name)
        )

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        labels: str = "",
        fields: str = "",
        metadata_only: bool = False,
    ) -> list[Object]:
        def listed() -> list[Object]:
            if resource.plural not in WATCHED:
                return []
            found = self._server.list(resource.plural)
            if resource == PODS:
                name, _, value = labels.partition("=")
                found = [each for each in found if each["metadata"]["labels"].get(name) == value]
            return found

        return await self._process.ask("cluster", f"list {resource.plural}", listed)

    async def pages(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        labels: str = "",
        fields: str = "",
        metadata_only: bool = False,
    ) -> AsyncIterator[Sequence[Object]]:
        yield await self.list(resource, namespace, labels=labels)

    async def apply(
        self, resource: Resource, namespace: str | None, body: Object, *, force: bool = False
    ) -> Object:
        return await self._write(
            f"apply {body['metadata']['name']} {body['spec'].get('attempt')}",
            lambda: self._server.apply(resource.plural, body),
        )

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        subresource: str = "",
    ) -> Object:
        if resource == EVENTS:
            subresource = "series"
        return await self._write(
            f"patch {name} {subresource}",
            lambda: self._server.patch(resource.plural, name, body, subresource),
        )

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str,
        resource_version: str | None = None,
    ) -> None:
        def delete() -> Object:
            found = self._server.objects[resource.plural].get(name)
            if found is not None:
                self._server.delete(resource.plural, name, uid=uid, version=resource_version)
                self.deleting(resource.plural, found)
            return {}

        await self._write(f"delete {name}", delete)

    async def pod_log(self, namespace: str, pod: str, *, container: str, max_bytes: int) -> str:
        return await self._process.ask("cluster", f"log of {pod}", lambda: self._nodes.log(pod))

    async def _write(self, what: str, effect: Callable[[], Object]) -> Object:
        def counted() -> Object:
            before = self._server.version
            answer = effect()
            if self._server.version != before:
                self.writes.append(what)
            return answer

        return await self._process.ask("cluster", what, counted)


class Logs(Protocol):
    """Who has the logs of pods."""

    def log(self, pod: str) -> str:
        """NotFound where there is none; ClusterUnavailable where its node is silent."""


class OperatorProcess(Process):
    """Mirror of types, cache, work queue, reconciler and sweep, fed by watches of its own."""

    def __init__(self, name: str, loop: Loop, server: ApiServer, store: Store, nodes: Logs) -> None:
        super().__init__(name, loop)
        database = SimulatedDatabase(store, self)
        self.kubernetes = SimulatedKubernetes(server, self, nodes)
        self.cache, queue = Cache(), WorkQueue()
        self._mirror = TypeMirror(database, self.kubernetes, self.cache, queue, namespace=NAMESPACE)
        handlers = {**feeding(self.cache, queue), HYBRIDJOB_TYPES: self._mirror.on_event}
        self.watch = Watch(server, handlers, self.spawn)
        worker = WorkerSettings("image", "Never", "worker", "http://api", "hybridjobs", None)
        self._reconciler = Reconciler(
            database, self.kubernetes, self.cache, queue, namespace=NAMESPACE, worker=worker
        )
        self._sweep = Sweep(database, self.kubernetes, self.cache, queue, self._mirror, _SETTINGS)
        self.leads = False
        self._following: asyncio.Task[Any] | None = None
        self.spawn(self._start())
        self.loop.settle()

    async def _start(self) -> None:
        """As app.serve does; there the process ends where it cannot, and is started anew."""
        while True:
            try:
                await self._mirror.read_all()
            except (ClusterUnavailable, DatabaseUnavailable):
                await asyncio.sleep(2)
            else:
                break
        self.watch.begin()
        if self.leads:
            self._act()
        else:
            self._following = self.create(self._reconciler.follow())

    def lead(self) -> None:
        """Act, as a replica does that has taken the Lease."""
        self.leads = True
        if self._following is not None:
            self._following.cancel()
            with self.loop.current():
                self._act()
            self.loop.settle()

    def _act(self) -> None:
        self.create(self._reconciler.run(2))
        self.create(self._sweep.run())

    def stop(self) -> None:
        self.watch.close()
        super().stop()


_SETTINGS = OperatorSettings(
    database_url="postgresql://none",
    namespace=NAMESPACE,
    worker_image="image",
    worker_api_url="http://api",
    sweep_seconds=60,
    keep_succeeded_seconds=60,
    keep_failed_seconds=120,
)


class DispatcherProcess(Process):
    """The dispatcher of one ingress replica."""

    def __init__(self, name: str, loop: Loop, server: ApiServer, store: Store, nodes: Logs) -> None:
        super().__init__(name, loop)
        database = SimulatedDatabase(store, self)
        self.kubernetes = SimulatedKubernetes(server, self, nodes)
        runtime = ClusterRuntime(database, self.kubernetes, namespace=NAMESPACE)
        self.dispatcher = Dispatcher(database, runtime, window=100)
        self.begin(self.dispatcher.run())
