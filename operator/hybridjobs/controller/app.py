"""The operator process: composition, health, leadership; it ends as soon as any part ends."""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from socket import gethostname
from typing import Any
from uuid import uuid4

import structlog

from hybridjobs.controller.cache import Cache
from hybridjobs.controller.leadership import Leadership
from hybridjobs.controller.metrics import follow_queue, watch_state
from hybridjobs.controller.reconcile import Reconciler
from hybridjobs.controller.shipped import apply_shipped
from hybridjobs.controller.sweep import Sweep
from hybridjobs.controller.types import TypeMirror
from hybridjobs.controller.watch import SELECTORS, feeding, start_watching
from hybridjobs.controller.watchdog import Contact, Told, Watchdog
from hybridjobs.controller.workqueue import WorkQueue
from hybridjobs.errors import ClusterUnavailable
from hybridjobs.health import health_app
from hybridjobs.kube.client import (
    HYBRIDJOB_SCHEDULES,
    HYBRIDJOB_TYPES,
    HYBRIDJOBS,
    JOBS,
    PODS,
    ApiError,
    Kubernetes,
)
from hybridjobs.kube.credentials import load_configuration
from hybridjobs.kube.manifests import WorkerSettings
from hybridjobs.observed import kubernetes_answered
from hybridjobs.schedules.known import KnownSchedules
from hybridjobs.schedules.reporter import Reporter
from hybridjobs.schedules.ticker import Ticker
from hybridjobs.serving import server
from hybridjobs.settings import OperatorSettings
from hybridjobs.store.database import Database
from hybridjobs.tracing import endpoints

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 2.0


async def serve(settings: OperatorSettings) -> None:
    """Run until SIGTERM or SIGINT. Whatever fails for good ends the process, for a restart."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    configuration = await load_configuration()
    database = Database(settings.database_url.get_secret_value(), size=settings.database_pool_size)
    kubernetes = Kubernetes(
        configuration, field_manager="hybridjobs-operator", answered=kubernetes_answered
    )
    acting = asyncio.Event()
    leadership = Leadership(
        kubernetes,
        namespace=settings.namespace,
        name=settings.lease_name,
        identity=f"{gethostname()}_{uuid4()}",
    )
    told = Told()
    watchdog = Watchdog(
        kubernetes,
        told,
        [HYBRIDJOBS, JOBS, PODS, HYBRIDJOB_TYPES, HYBRIDJOB_SCHEDULES],
        SELECTORS,
        namespace=settings.namespace,
        check_seconds=settings.watch_check_seconds,
        stale_seconds=settings.watch_stale_seconds,
    )
    health = server(
        health_app(
            ready=lambda: (acting.is_set() or leadership.follows) and watchdog.sees,
            hangs=lambda: watchdog.hangs,
        ),
        host=settings.bind,
        port=settings.health_port,
    )
    # Served from the start, so that waiting for the cluster is no reason for a restart.
    health_task = asyncio.create_task(health.serve(), name="health")
    async with database, kubernetes:
        await database.check_schema()
        await _wait_for_crds(kubernetes, settings.namespace)
        cache, queue = Cache(), WorkQueue()
        watch_state(depth=queue.__len__, leads=lambda: leadership.leads)
        mirror = TypeMirror(database, kubernetes, cache, queue, namespace=settings.namespace)
        await mirror.read_all()
        reconciler = Reconciler(
            database,
            kubernetes,
            cache,
            queue,
            namespace=settings.namespace,
            worker=_worker_settings(settings),
        )
        schedules = KnownSchedules()
        watching = await start_watching(
            configuration,
            {
                **feeding(cache, queue),
                HYBRIDJOB_TYPES: mirror.on_event,
                HYBRIDJOB_SCHEDULES: schedules.on_event,
            },
            told,
            namespace=settings.namespace,
        )
        # kopf has just taken these signals for its own tasks alone.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        sweep = Sweep(database, kubernetes, cache, queue, mirror, settings)
        ticker = Ticker(database, schedules)
        reporter = Reporter(kubernetes, schedules, namespace=settings.namespace)

        async def lead() -> None:
            if settings.types_dir is not None:
                await _apply_shipped(kubernetes, settings)
            acting.set()
            log.info("operator ready", namespace=settings.namespace)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(reconciler.run(settings.reconcile_workers))
                    group.create_task(sweep.run())
                    group.create_task(ticker.run())
                    group.create_task(reporter.run())
                    group.create_task(follow_queue(database))
            finally:
                acting.clear()

        parts = [
            watching,
            health_task,
            asyncio.create_task(watchdog.run(), name="watchdog"),
            asyncio.create_task(leadership.run(lead, reconciler.follow), name="leadership"),
            asyncio.create_task(stop.wait(), name="stop"),
        ]
        await until_one_ends(parts)


async def _apply_shipped(kubernetes: Kubernetes, settings: OperatorSettings) -> None:
    """By the leader alone, so that of two releases the one that takes over has the last word."""
    assert settings.types_dir is not None
    while True:
        try:
            await apply_shipped(
                kubernetes,
                Path(settings.types_dir),
                namespace=settings.namespace,
                selector=settings.types_selector,
            )
        except ClusterUnavailable as error:
            log.warning("what the release ships waits", error=error.detail)
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return


async def _wait_for_crds(kubernetes: Kubernetes, namespace: str) -> None:
    contact = Contact()
    while True:
        try:
            for resource in (HYBRIDJOBS, HYBRIDJOB_TYPES, HYBRIDJOB_SCHEDULES):
                await anext(kubernetes.pages(resource, namespace, metadata_only=True))
        except (ApiError, ClusterUnavailable) as error:
            log.warning("waiting for the cluster and its CRDs", error=str(error))
            contact.failed(error)
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return


async def until_one_ends(parts: Sequence[asyncio.Task[Any]]) -> None:
    """End all parts as soon as one has; an error, unless it is the one named "stop"."""
    done, running = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
    for part in running:
        part.cancel()
    if running:
        await asyncio.wait(running, timeout=10)
    for part in sorted(done, key=parts.index):
        name = part.get_name()
        if name == "stop":
            continue
        error = None if part.cancelled() else part.exception()
        log.error("the operator ends, to be started anew", part=name, error=repr(error))
        raise error or RuntimeError(f"{name} ended by itself")


def _worker_settings(settings: OperatorSettings) -> WorkerSettings:
    return WorkerSettings(
        image=settings.worker_image,
        image_pull_policy=settings.worker_image_pull_policy,
        service_account=settings.worker_service_account,
        api_url=settings.worker_api_url,
        audience=settings.worker_audience,
        database_secret=settings.handlers_database_secret,
        traces=endpoints(),
    )
