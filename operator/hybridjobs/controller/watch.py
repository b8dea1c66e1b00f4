"""Watching by kopf: list, watch, reconnect, authenticate. Nothing else of it is on our path.

`on.event` handlers only feed the cache and the work queue: no annotations, no finalizers, no
writes of kopf's own. kopf's other machinery would write up to four times an object.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import kopf
from kubernetes.aio.client import Configuration

from hybridjobs.controller.cache import Cache, Object, hybridjob_of
from hybridjobs.controller.workqueue import WorkQueue
from hybridjobs.kube import names
from hybridjobs.model import GROUP, VERSION

EventHandler = Callable[[str | None, Object], Awaitable[None]]

_INACTIVITY_SECONDS = 70.0


class Feed:
    """What the watches tell goes into the cache, and what is to be looked at into the queue."""

    def __init__(self, cache: Cache, queue: WorkQueue) -> None:
        self._cache = cache
        self._queue = queue

    def hybridjob(self, kind: str | None, body: Object) -> None:
        """One event of a HybridJob; `kind` None: it was listed."""
        if kind == "DELETED":
            self._cache.remove_hybridjob(body)
        else:
            self._cache.put_hybridjob(body)
        self._queue.add(body["metadata"]["name"])

    def job(self, kind: str | None, body: Object) -> None:
        """One event of a Kubernetes Job."""
        if kind == "DELETED":
            self._cache.remove_job(body)
        else:
            self._cache.put_job(body)
        self._look_at_owner(body)

    def pod(self, kind: str | None, body: Object) -> None:
        """One event of a pod."""
        if kind == "DELETED":
            self._cache.remove_pod(body)
        else:
            self._cache.put_pod(body)
        self._look_at_owner(body)

    def _look_at_owner(self, body: Object) -> None:
        if (name := hybridjob_of(body)) is not None:
            self._queue.add(name)


class _NoDiffBase(kopf.DiffBaseStorage):
    """kopf computes an object's essence for every event, even for on.event alone: a third of the
    event's cost."""

    def build(self, **_: Any) -> Any:  # noqa: ANN401 - the base class's signature
        return {}

    def fetch(self, **_: Any) -> Any:  # noqa: ANN401 - the base class's signature
        return None

    def store(self, **_: Any) -> None:  # noqa: ANN401 - the base class's signature
        return None


async def start_watching(
    configuration: Configuration,
    feed: Feed,
    on_type: EventHandler,
    on_schedule: EventHandler,
    *,
    namespace: str,
) -> Collection[asyncio.Task[Any]]:
    """Start kopf's tasks; when one of them ends, watching has failed and so must the process."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:  # noqa: ANN401
        # Refreshes the token where it expires; "Bearer …" or nothing.
        key = await configuration.get_api_key_with_prefix("BearerToken") or ""
        scheme, _space, token = key.rpartition(" ")
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            scheme=scheme or ("Bearer" if token else None),
            token=token or None,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
        )

    @kopf.on.event(GROUP, VERSION, "hybridjobs", registry=registry)
    async def hybridjob(event: Any, **_: Any) -> None:  # noqa: ANN401
        feed.hybridjob(event["type"], event["object"])

    @kopf.on.event("batch", "v1", "jobs", registry=registry)
    async def job(event: Any, **_: Any) -> None:  # noqa: ANN401
        feed.job(event["type"], event["object"])

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def pod(event: Any, **_: Any) -> None:  # noqa: ANN401
        feed.pod(event["type"], event["object"])

    @kopf.on.event(GROUP, VERSION, "hybridjobtypes", registry=registry)
    async def job_type(event: Any, **_: Any) -> None:  # noqa: ANN401
        await on_type(event["type"], event["object"])

    @kopf.on.event(GROUP, VERSION, "hybridjobschedules", registry=registry)
    async def schedule(event: Any, **_: Any) -> None:  # noqa: ANN401
        await on_schedule(event["type"], event["object"])

    return await kopf.spawn_tasks(
        registry=registry, settings=_settings(), namespaces=[namespace], standalone=True
    )


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _NoDiffBase()
    # A worker task of kopf's lives this long after its object's last event.
    settings.queueing.idle_timeout = 0.05
    settings.networking.request_timeout = 30
    settings.watching.chunk_size = 500
    settings.watching.inactivity_timeout = _INACTIVITY_SECONDS
    settings.watching.label_selectors["batch", "v1", "jobs"] = names.SELECTOR
    settings.watching.label_selectors["", "v1", "pods"] = names.SELECTOR
    return settings
