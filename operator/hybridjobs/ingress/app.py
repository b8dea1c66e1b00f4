"""The ingress process: its parts put together, four listeners in one loop, and how it ends.

A part that ends by itself ends the process, with its error in the log: a replica that serves but
no longer commits, dispatches or sweeps would be worse than none.
"""

import asyncio
import contextlib
import gc
import os
import resource
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from hybridjobs.callbacks.deliverer import MAX_SENDS, Deliverer
from hybridjobs.callbacks.network import Resolver
from hybridjobs.callbacks.secrets import Secrets
from hybridjobs.callbacks.sender import Sender
from hybridjobs.callbacks.targets import Targets
from hybridjobs.dispatch.loop import Dispatcher, Runtime
from hybridjobs.health import health_app
from hybridjobs.ingress import metrics
from hybridjobs.ingress.api import Access, Backend, api, callers_of
from hybridjobs.ingress.asgi import Listener, by_path
from hybridjobs.ingress.inngest.config import InngestConfig
from hybridjobs.ingress.inngest.endpoint import closed as inngest_closed
from hybridjobs.ingress.intake import Intake
from hybridjobs.ingress.limits import RateLimit
from hybridjobs.ingress.listeners import listener_of, listening
from hybridjobs.ingress.live import Live
from hybridjobs.ingress.maintenance import maintain
from hybridjobs.ingress.pool import Pool
from hybridjobs.ingress.quick import QuickJobs, handler_of
from hybridjobs.ingress.received import traced
from hybridjobs.ingress.redelivery import Redelivery
from hybridjobs.ingress.sources.cloudevents import CloudEvents
from hybridjobs.ingress.sources.github import GitHubWebhooks
from hybridjobs.ingress.sources.standard import StandardWebhooks
from hybridjobs.ingress.submissions import ChildJobs
from hybridjobs.ingress.tokens import ClusterKeys, KeySource
from hybridjobs.ingress.workers import WorkerApi
from hybridjobs.payload_schemas import PayloadSchemas
from hybridjobs.serving import GRACE_SECONDS
from hybridjobs.settings import IngressSettings
from hybridjobs.store.database import Database
from hybridjobs.store.enqueue import Enqueuer
from hybridjobs.store.heartbeats import Heartbeats
from hybridjobs.store.outcome import Outcomes
from hybridjobs.store.retention import Keep
from hybridjobs.store.types import TypeCatalog

if TYPE_CHECKING:
    from hybridjobs.ingress.cluster import Cluster
    from hybridjobs.ingress.inngest.service import InngestService

log = structlog.get_logger(__name__)

_LISTENERS = 4
_OTHER_FILES = 512  # the database, the cluster, children
# Few collections: an answer makes no cycles, and a pass over a large heap is a pause for all.
GC_THRESHOLDS = (20_000, 20, 20)


MakeRuntime = Callable[[AsyncExitStack, Database], Awaitable[Runtime]]


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports bound, also where 0 was asked for."""

    webhooks: int
    api: int
    workers: int
    health: int


async def serve(settings: IngressSettings) -> None:
    """Run until SIGTERM or SIGINT; SchemaError and DatabaseUnavailable at the start say why not."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    _allow_files(_LISTENERS * settings.max_connections + _OTHER_FILES)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        keys = cluster = None
        if host := os.environ.get("KUBERNETES_SERVICE_HOST"):
            port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
            keys = ClusterKeys.in_cluster(host, port)
            stack.push_async_callback(keys.close)
        knows_callers = bool(host) and settings.api_cluster_tokens
        if settings.dispatch or knows_callers:
            from hybridjobs.ingress.cluster import connected

            connection = connected(settings, knows_callers=knows_callers)
            cluster = await stack.enter_async_context(connection)
        runtime = cluster.runtime if cluster and settings.dispatch else None
        await Ingress(settings, keys=keys, cluster=cluster, runtime=runtime).run(stop)


class Ingress:
    """One ingress.

    `keys` verify workers' tokens; None: the workers' listener is closed. `cluster` is where callers
    of the API are known, and the logs of pods are; None: only those of the database. `runtime`
    makes the place where jobs run; None: nothing is dispatched here.
    """

    def __init__(
        self,
        settings: IngressSettings,
        *,
        keys: KeySource | None,
        cluster: "Cluster | None" = None,
        runtime: MakeRuntime | None = None,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._cluster = cluster
        self._make_runtime = runtime
        self._pool: Pool | None = None
        self._catalog: TypeCatalog | None = None
        self.ports: asyncio.Future[Ports] = asyncio.get_running_loop().create_future()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set: then refuse new work, end what runs, and return."""
        settings, cluster = self._settings, self._cluster
        url = settings.database_url.get_secret_value()
        targets = Targets.parse(
            settings.callback_allow,
            private=settings.callback_private,
            enabled=settings.callback_secrets_dir is not None,
        )
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(
                Database(url, size=settings.database_pool_size)
            )
            await database.check_schema()
            redelivery = Redelivery.configured(settings, database)
            self._catalog = catalog = TypeCatalog(database)
            await catalog.refresh()
            enqueuer = Enqueuer(url, committed=metrics.observe_commit)
            outcomes = Outcomes(url)
            heartbeats = Heartbeats(url)
            self._pool = pool = Pool(
                settings.inline_children,
                memory_bytes=settings.inline_child_memory_bytes,
                environment=settings.child_environment,
                handlers=lambda: _quick_handlers(catalog),
            )
            deliverer = _deliverer(settings, stack, database, targets)
            inngest = await self._inngest(stack)
            dispatcher = await self._dispatcher(stack, database)
            wake = dispatcher.wake if dispatcher else _nobody_to_wake
            parts = await stack.enter_async_context(_Parts())
            parts.add("enqueuer", enqueuer.run)
            parts.add("outcomes", outcomes.run)
            parts.add("heartbeats", heartbeats.run)
            parts.add("types", catalog.run)
            parts.add("callbacks", deliverer.run)
            live = Live(database, stopping=stop)
            parts.add("followers", live.run)
            parts.add("maintenance", lambda: maintain(database, Keep.of(settings)))
            if redelivery is not None:
                parts.add("redelivery", redelivery.run)
            if pool.size:
                parts.add("children", pool.run)
            if dispatcher is not None:
                parts.add("dispatcher", dispatcher.run)

            schemas = PayloadSchemas()
            limit = settings.max_payload_bytes
            children = ChildJobs(
                catalog,
                enqueuer,
                schemas,
                database,
                max_payload_bytes=limit,
                targets=targets,
                wake=wake,
            )
            quick = QuickJobs(
                pool,
                database,
                outcomes,
                heartbeats,
                children,
                max_result_bytes=settings.max_result_bytes,
                wake=wake,
            )
            intake = Intake(database, enqueuer, schemas, quick, wake=wake)
            cloudevents = CloudEvents(settings, catalog, intake)
            functions = (
                inngest.start(parts.add, catalog, intake, database) if inngest else inngest_closed
            )
            webhooks = by_path(
                {
                    "/api/inngest": dict.fromkeys(("GET", "POST", "PUT"), functions),
                    "/webhooks/cloudevents": {
                        "POST": cloudevents,
                        "OPTIONS": cloudevents.handshake,
                    },
                    "/webhooks/github": {"POST": GitHubWebhooks(settings, catalog, intake)},
                    "/webhooks/standard/": {"POST": StandardWebhooks(settings, catalog, intake)},
                }
            )
            backend = Backend(
                database=database,
                catalog=catalog,
                intake=intake,
                schemas=schemas,
                wake=wake,
                stopping=stop,
                max_payload_bytes=limit,
                max_wait_seconds=settings.max_wait_seconds,
                targets=targets,
                live=live,
                pod_log=cluster.log if cluster else None,
            )
            reviews = cluster.reviews if cluster else None
            callers = callers_of(settings.api_token, database, reviews)
            access = Access(api(backend), callers, RateLimit(settings.api_requests_per_second))
            workers = WorkerApi(settings, database, catalog, children, heartbeats, self._keys)
            ready = asyncio.Event()
            health = listener_of(health_app(ready=ready.is_set), settings, settings.health_port)
            listener = partial(Listener, max_in_flight=settings.max_requests_in_flight)
            servers = [
                listener_of(app, settings, port)
                for app, port in (
                    (listener("webhooks", traced(webhooks)), settings.webhook_port),
                    (listener("api", traced(access)), settings.api_port),
                    (listener("workers", workers.routes()), settings.worker_port),
                )
            ]
            # What follows ends in this order: new requests, those in flight, the jobs that they
            # began, the health listener, the parts.
            async with listening([health]):
                try:
                    async with listening(servers):
                        self.ports.set_result(Ports(*(each.port for each in (*servers, health))))
                        ready.set()
                        log.info("ingress ready", dispatch=dispatcher is not None)
                        gc.freeze()
                        gc.set_threshold(*GC_THRESHOLDS)
                        await parts.until(stop)
                        ready.clear()
                finally:
                    await _drained(quick)
        log.info("ingress stopped")

    async def _inngest(self, stack: AsyncExitStack) -> "InngestService | None":
        config = InngestConfig.of(self._settings)
        if config is None:
            return None
        # The SDK takes a second to import, which a process without it need not wait.
        from hybridjobs.ingress.inngest.sdk import Sdk
        from hybridjobs.ingress.inngest.service import InngestService

        return InngestService(config, await stack.enter_async_context(Sdk(config)))

    async def renew_types(self) -> None:
        """Read the job types now, as when they have changed; DatabaseUnavailable."""
        if self._catalog is not None:
            await self._catalog.refresh()

    def renew_children(self) -> None:
        """Have the warm children replaced, as when their code has changed."""
        if self._pool is not None:
            self._pool.renew()

    async def _dispatcher(self, stack: AsyncExitStack, database: Database) -> Dispatcher | None:
        if self._make_runtime is None:
            return None
        runtime = await self._make_runtime(stack, database)
        return Dispatcher(database, runtime, window=self._settings.window)


def _deliverer(
    settings: IngressSettings, stack: AsyncExitStack, database: Database, targets: Targets
) -> Deliverer:
    resolver = Resolver()
    stack.callback(resolver.close)
    secrets = Secrets(settings.callback_secrets_dir)
    sender = Sender(targets, secrets, resolver, connections=MAX_SENDS)
    stack.push_async_callback(sender.close)
    return Deliverer(database, sender, tried=metrics.observe_callback)


def _allow_files(needed: int) -> None:
    """Let this process open so many, if it may: a connection that finds none is not accepted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        log.warning("few open files are allowed: lower max_connections", allowed=allowed)


class _Parts:
    """The tasks that must run as long as the process does; cancelled when it ends."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "_Parts":
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def add(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Start a part."""

        async def part() -> None:
            await run()

        self._tasks.append(asyncio.create_task(part(), name=name))

    async def until(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, or a part ends, which raises its error."""
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopping, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        for task in self._tasks:
            if task.done():
                error = None if task.cancelled() else task.exception()
                log.error("a part of the ingress ended", part=task.get_name(), exc_info=error)
                raise RuntimeError(f"{task.get_name()} ended by itself") from error


def _quick_handlers(catalog: TypeCatalog) -> tuple[str, ...]:
    types = (each for each in catalog.all() if each.spec.mode == "quick")
    return tuple(sorted({handler_of(each) for each in types}))


async def _drained(quick: QuickJobs) -> None:
    # Bounded, since a part that has died may be the one that they wait for.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE_SECONDS):
            await quick.drain()


def _nobody_to_wake() -> None:
    """Without a dispatcher, rows wait for another replica's."""
