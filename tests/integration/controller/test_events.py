"""Trouble is told where people look first."""

from datetime import timedelta
from typing import Any

import pytest

from hybridjobs.controller import events
from hybridjobs.controller.events import Events
from hybridjobs.kube.client import EVENTS, HYBRIDJOBS, JOBS, Kubernetes
from hybridjobs.kube.names import job_name
from hybridjobs.model import AttemptEnd, Outcome
from tests.integration.controller.proxy import Proxy
from tests.integration.controller.scene import Scene


async def _told(scene: Scene, name: str) -> list[Any]:
    """The Events about a HybridJob, the first first."""
    found = await scene.kubernetes.list(EVENTS, scene.namespace)
    about = [each for each in found if each["regarding"]["name"] == name]
    return sorted(about, key=lambda each: each["eventTime"])


async def test_an_attempt_that_is_lost_is_told(scene: Scene) -> None:
    job_id = await scene.dispatched()
    name = await scene.name_of(job_id)
    await scene.reconciled(name)
    assert await _told(scene, name) == []
    job = await scene.kubernetes.get(JOBS, scene.namespace, job_name(job_id, 1))
    scene.cache.remove_job(job)
    uid = job["metadata"]["uid"]
    await scene.kubernetes.delete(JOBS, scene.namespace, job["metadata"]["name"], uid=uid)
    await scene.reconciled(name)
    (event,) = await _told(scene, name)
    assert (event["type"], event["reason"]) == ("Warning", "JobDeleted")
    assert event["note"] == "attempt 1 ended as lost: its Kubernetes Job was deleted"
    hybridjob = await scene.kubernetes.get(HYBRIDJOBS, scene.namespace, name)
    assert event["regarding"]["uid"] == hybridjob["metadata"]["uid"]


async def test_the_same_again_is_counted_and_other_trouble_is_not(scene: Scene) -> None:
    name = await scene.name_of(await scene.dispatched())
    body = await scene.see(name)
    telling = Events(scene.kubernetes, namespace=scene.namespace)
    for attempt in (1, 2, 3):
        end = AttemptEnd(Outcome.OOM, "OOMKilled", "the container exceeded its memory limit")
        await telling.ended(body, attempt, end)
    await telling.ended(body, 4, AttemptEnd(Outcome.FAILED, "Error", "x" * 5000))
    await telling.ended(body, 5, AttemptEnd(Outcome.SUCCEEDED, "Completed"))
    killed, failed = await _told(scene, name)
    assert (killed["reason"], killed["series"]["count"]) == ("OOMKilled", 3)
    assert killed["note"].startswith("attempt 1 ended as oom")
    assert (failed["reason"], failed.get("series")) == ("Error", None)
    assert len(failed["note"]) == 1024


async def test_who_cannot_be_told_now_hinders_nothing(scene: Scene, proxy: Proxy) -> None:
    body = await scene.see(await scene.name_of(await scene.dispatched()))
    proxy.status = 503
    async with Kubernetes(proxy.configuration(), field_manager="test") as kubernetes:
        await Events(kubernetes, namespace=scene.namespace).warn(body, "ByTest", "nobody hears")


async def test_what_cannot_be_told_hinders_nothing(scene: Scene) -> None:
    name = await scene.name_of(await scene.dispatched())
    body = await scene.see(name)
    telling = Events(scene.kubernetes, namespace="no-such-namespace")
    await telling.warn(body, "ByTest", "nobody hears")
    assert await _told(scene, name) == []


async def test_the_same_much_later_is_told_anew(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_SERIES", timedelta(0))
    name = await scene.name_of(await scene.dispatched())
    body = await scene.see(name)
    telling = Events(scene.kubernetes, namespace=scene.namespace)
    for note in ("first", "second"):
        await telling.warn(body, "ByTest", note)
    assert [each["note"] for each in await _told(scene, name)] == ["first", "second"]


async def test_of_more_than_is_remembered_the_oldest_is_forgotten(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_MAX_KNOWN", 2)
    name = await scene.name_of(await scene.dispatched())
    body = await scene.see(name)
    telling = Events(scene.kubernetes, namespace=scene.namespace)
    for reason in ("A", "B", "C", "B", "A"):
        await telling.warn(body, reason, "by test")
    told = [(each["reason"], "series" in each) for each in await _told(scene, name)]
    assert told == [("A", False), ("B", True), ("C", False), ("A", False)]
