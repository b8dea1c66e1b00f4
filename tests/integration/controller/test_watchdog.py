"""Watches that tell nothing any more are found out, quiet ones are not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from hybridjobs.controller.watch import watchers
from hybridjobs.controller.watchdog import Told, WatchStale
from hybridjobs.kube.client import (
    CRDS,
    HYBRIDJOB_SCHEDULES,
    PODS,
    Kubernetes,
    NotFound,
    Object,
    Resource,
)
from tests.cluster import Cluster
from tests.integration.controller.proxy import Proxy
from tests.integration.controller.scene import configured
from tests.integration.controller.watching import WATCHED, Watching, watching
from tests.waiting import eventually

DEFINITIONS = Path(__file__).parents[3] / "manifests" / "crds"


async def all_watched(proxy: Proxy) -> None:
    await eventually(lambda: len(set(proxy.watches)) == len(WATCHED))


@pytest.mark.parametrize("resource", WATCHED, ids=lambda resource: resource.plural)
async def test_an_open_watch_that_tells_nothing_is_stale(
    proxy: Proxy, kubernetes: Kubernetes, namespace: str, resource: Resource
) -> None:
    async with watching(proxy.configuration(), kubernetes, namespace) as found:
        await all_watched(proxy)
        proxy.silent.add(resource)
        for each in WATCHED:
            await found.make(each, f"test-{each.plural}")
        for each in set(WATCHED) - {resource}:
            await found.told_of(f"test-{each.plural}")
        watchdog = found.watchdog()
        with pytest.raises(WatchStale, match=f"^{resource.plural}: .*1 objects"):
            await watchdog.run()
        assert not watchdog.sees


async def test_quiet_watches_and_busy_ones_are_alive(
    cluster: Cluster, proxy: Proxy, kubernetes: Kubernetes, namespace: str
) -> None:
    lists: list[int] = []
    async with (
        Kubernetes(
            await configured(cluster),
            field_manager="test",
            answered=lambda _verb, status: lists.append(status),
        ) as checking,
        watching(proxy.configuration(), checking, namespace) as found,
    ):
        await all_watched(proxy)
        watchdog = found.watchdog(stale_seconds=3)
        running = asyncio.create_task(watchdog.run())
        for number in range(20):
            name = f"busy-{number}"
            uid = await found.make(HYBRIDJOB_SCHEDULES, name)
            await kubernetes.delete(HYBRIDJOB_SCHEDULES, namespace, name, uid=uid)
        lists.clear()
        # Longer than what is stale.
        await eventually(lambda: running.done() or len(lists) >= 12 * len(WATCHED))
        assert not running.done()
        assert watchdog.sees
        running.cancel()


async def test_a_watcher_that_kopf_lost_alone_is_found_out(
    proxy: Proxy, kubernetes: Kubernetes, namespace: str
) -> None:
    async with watching(proxy.configuration(), kubernetes, namespace) as found:
        await all_watched(proxy)
        [lost] = watchers("pods")
        lost.cancel()
        await asyncio.wait([lost])
        await found.make(PODS, "unseen")
        with pytest.raises(WatchStale, match=r"^pods: "):
            await found.watchdog().run()
        assert not found.task.done()  # kopf has not noticed


async def test_a_watcher_that_fails_ends_the_others_too(
    proxy: Proxy, kubernetes: Kubernetes, namespace: str
) -> None:
    async with watching(proxy.configuration(), kubernetes, namespace) as found:
        await all_watched(proxy)
        failure = {"code": 500, "reason": "InternalError", "message": "by test"}
        await proxy.tell(PODS, {"type": "ERROR", "object": failure})
        await asyncio.wait([found.task], timeout=20)
        assert type(found.task.exception()).__name__ == "WatchingError"
        assert not watchers()


async def test_a_cluster_that_was_restored_from_a_backup_is_found_out(
    kubernetes: Kubernetes, namespace: str
) -> None:
    told = Told()
    version, _ = await kubernetes.versions(PODS, namespace)
    future = {"metadata": {"uid": "x", "resourceVersion": str(version + 10**6)}}
    told.event(PODS, "DELETED", future)
    found = Watching(kubernetes, namespace, told)
    with pytest.raises(WatchStale, match="restored from a backup"):
        await found.watchdog().run()


@dataclass
class Definition:
    """A definition of a group of its own, since those of the release are in use."""

    kubernetes: Kubernetes
    namespace: str
    body: Object
    resource: Resource

    async def make(self) -> None:
        """Make it, and wait until it is served."""
        await self.kubernetes.create(CRDS, None, self.body)
        await eventually(lambda: self.kubernetes.served(self.resource.group, "v1alpha1"))

    async def delete(self) -> None:
        """Delete it, and wait until it is gone."""
        name = self.body["metadata"]["name"]

        async def is_gone() -> bool:
            try:
                await self.kubernetes.get(CRDS, None, name)
            except NotFound:
                return True
            return False

        with suppress(NotFound):
            made = await self.kubernetes.get(CRDS, None, name)
            await self.kubernetes.delete(CRDS, None, name, uid=made["metadata"]["uid"])
        await eventually(is_gone)


@pytest.fixture
async def definition(kubernetes: Kubernetes, namespace: str) -> AsyncIterator[Definition]:
    group = f"{namespace}.hybridjobs.dev"
    text = (DEFINITIONS / "hybridjobschedules.yaml").read_text()
    body = yaml.safe_load(text.replace("hybridjobs.dev", group))
    resource = Resource(group, "v1alpha1", "hybridjobschedules")
    definition = Definition(kubernetes, namespace, body, resource)
    await definition.make()
    yield definition
    await definition.delete()


async def test_definitions_deleted_under_a_watch_end_it_and_the_next_one_sees_again(
    cluster: Cluster, kubernetes: Kubernetes, definition: Definition, namespace: str
) -> None:
    schedules, configuration = definition.resource, await configured(cluster)
    async with watching(configuration, kubernetes, namespace, [schedules]) as found:
        await found.make(schedules, "first")
        await found.told_of("first")
        await definition.delete()
        await found.told_of("first", "DELETED")
        await asyncio.wait([found.task], timeout=20)
        assert type(found.task.exception()).__name__ == "APINotFoundError"
    await definition.make()
    async with watching(configuration, kubernetes, namespace, [schedules]) as found:
        await found.make(schedules, "second")
        await found.told_of("second")


async def test_definitions_made_anew_at_once_are_watched_on_or_the_watch_ends(
    cluster: Cluster, kubernetes: Kubernetes, definition: Definition, namespace: str
) -> None:
    schedules, configuration = definition.resource, await configured(cluster)
    async with watching(configuration, kubernetes, namespace, [schedules]) as found:
        await found.make(schedules, "first")
        await found.told_of("first")
        await definition.delete()
        await definition.make()
        await found.make(schedules, "second")

        def is_told_or_over() -> bool:
            return found.task.done() or ("ADDED", "second") in found.seen

        await eventually(is_told_or_over)
