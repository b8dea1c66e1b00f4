"""Watching by kopf: list, watch, reconnect, authenticate. Nothing else of it is on our path.

`on.event` handlers only note what they are told and feed the cache and the work queue: no
annotations, no finalizers, no writes of kopf's own. kopf's other machinery would write up to four
times an object.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory
from kubernetes.aio.client import Configuration

from hybridjobs.controller.cache import Cache, Object, hybridjob_of
from hybridjobs.controller.watchdog import Told
from hybridjobs.controller.workqueue import WorkQueue
from hybridjobs.kube import names
from hybridjobs.kube.client import HYBRIDJOBS, JOBS, PODS, Resource

EventHandler = Callable[[str | None, Object], Awaitable[None]]

# Of the resources that others use too, ours alone.
SELECTORS = {JOBS: names.SELECTOR, PODS: names.SELECTOR}
# A stream that tells nothing, not even a bookmark (one a minute), is opened anew.
_INACTIVITY_SECONDS = 70.0


class _NoDiffBase(kopf.DiffBaseStorage):
    """kopf computes an object's essence for every event, even for on.event alone: a third of the
    event's cost."""

    def build(self, **_: Any) -> Any:  # noqa: ANN401 - the base class's signature
        return {}

    def fetch(self, **_: Any) -> Any:  # noqa: ANN401 - the base class's signature
        return None

    def store(self, **_: Any) -> None:  # noqa: ANN401 - the base class's signature
        return None


class _NoProgress(kopf.ProgressStorage):
    """Nor is anything to be cleared of an object that never gets into that essence."""

    def fetch(self, **_: Any) -> None:  # noqa: ANN401
        return None

    def store(self, **_: Any) -> None:  # noqa: ANN401
        return None

    def purge(self, **_: Any) -> None:  # noqa: ANN401
        return None

    def touch(self, **_: Any) -> None:  # noqa: ANN401
        return None

    def clear(self, *, essence: Any) -> Any:  # noqa: ANN401
        return essence


class _NoMemories(ResourceMemories):
    """kopf remembers a kilobyte of each object that it has seen, for handlers of other kinds."""

    async def recall(
        self,
        raw_body: Any,  # noqa: ANN401 - kopf's
        *,
        memobase: Any = None,  # noqa: ANN401
        noticed_by_listing: bool = False,
        ephemeral: bool = False,  # noqa: ARG002
    ) -> ResourceMemory:
        return await super().recall(
            raw_body, memobase=memobase, noticed_by_listing=noticed_by_listing, ephemeral=True
        )


def feeding(cache: Cache, queue: WorkQueue) -> dict[Resource, EventHandler]:
    """Handlers which keep the cache up to date, and have the HybridJob of each event looked at."""

    def handler(
        put: Callable[[Object], None],
        remove: Callable[[Object], None],
        name_of: Callable[[Object], str | None],
    ) -> EventHandler:
        async def on_event(kind: str | None, body: Object) -> None:
            (remove if kind == "DELETED" else put)(body)
            if (name := name_of(body)) is not None:
                queue.add(name, behind=kind is None)  # listed at the start

        return on_event

    return {
        HYBRIDJOBS: handler(
            cache.put_hybridjob, cache.remove_hybridjob, lambda body: body["metadata"]["name"]
        ),
        JOBS: handler(cache.put_job, cache.remove_job, hybridjob_of),
        PODS: handler(cache.put_pod, cache.remove_pod, hybridjob_of),
    }


async def start_watching(
    configuration: Configuration,
    handlers: Mapping[Resource, EventHandler],
    told: Told,
    *,
    namespace: str,
) -> asyncio.Task[None]:
    """Start kopf; when its task ends, watching has failed and so must the process."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:  # noqa: ANN401
        # Asked at the start and after each 401. Reads the token again; "Bearer …" or nothing.
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

    def register(resource: Resource, on_event: EventHandler) -> None:
        @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)
        async def handler(event: Any, **_: Any) -> None:  # noqa: ANN401
            told.event(resource, event["type"], event["object"])
            await on_event(event["type"], event["object"])

    for resource, on_event in handlers.items():
        register(resource, on_event)
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=_settings(),
        memories=_NoMemories(),
        namespaces=[namespace],
        standalone=True,
    )
    return asyncio.create_task(_until_one_ends(tasks), name="kopf")


async def _until_one_ends(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Raise what the first of kopf's tasks has ended by, with none of them left."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Where one watcher fails, kopf leaves the others behind; and when all tasks are cancelled
        # at once, as at the end of a process, these take that for a pause, and go on for ever.
        left = {*tasks, *watchers()}
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=10)
    for task in done:
        task.result()


def watchers(of: str = "") -> list[asyncio.Task[Any]]:
    """kopf's tasks that watch one resource each: all, or those of a plural name."""
    return [task for task in asyncio.all_tasks() if task.get_name().startswith(f"watcher for {of}")]


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    # A worker task of kopf's lives this long after its object's last event.
    settings.queueing.idle_timeout = 0.05
    settings.networking.request_timeout = 30
    settings.watching.chunk_size = 200
    settings.watching.inactivity_timeout = _INACTIVITY_SECONDS
    for resource, selector in SELECTORS.items():
        settings.watching.label_selectors[resource.group, resource.version, resource.plural] = (
            selector
        )
    return settings
