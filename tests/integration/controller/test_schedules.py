"""Schedules on the real API server and a real Postgres: objects in, jobs and statuses out."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from hybridjobs.kube.client import HYBRIDJOB_SCHEDULES
from hybridjobs.model import GROUP, VERSION
from hybridjobs.schedules.known import KnownSchedules
from hybridjobs.schedules.reporter import Reporter
from hybridjobs.schedules.ticker import Ticker
from tests.integration.controller.scene import Scene

_JOBS = """
SELECT id::text, key, schedule FROM hybridjobs.background_jobs WHERE source = 'schedule'
"""
# Half a year away: no tick comes between two looks.
_FAR_MONTH = (datetime.now(UTC).month + 5) % 12 + 1
_FAR = f"0 0 1 {_FAR_MONTH} *"


@dataclass
class Schedules:
    """A namespace's schedules, and the two loops' single steps."""

    scene: Scene
    known: KnownSchedules = field(default_factory=KnownSchedules)

    @property
    def reporter(self) -> Reporter:
        return Reporter(self.scene.kubernetes, self.known, namespace=self.scene.namespace)

    async def apply(self, name: str, **spec: Any) -> dict[str, Any]:
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "HybridJobSchedule",
            "metadata": {"name": name},
            "spec": {"schedule": _FAR, "type": "test/long", **spec},
        }
        return await self.scene.kubernetes.apply(
            HYBRIDJOB_SCHEDULES, self.scene.namespace, body, force=True
        )

    async def looked(self, name: str) -> dict[str, Any]:
        """The object's status after both loops have had a look."""
        await self.reporter.once()
        await Ticker(self.scene.database, self.known).once()
        await self.reporter.once()
        body = await self.scene.kubernetes.get(HYBRIDJOB_SCHEDULES, self.scene.namespace, name)
        status: dict[str, Any] = body["status"]
        return status

    async def delete(self, body: dict[str, Any]) -> None:
        metadata = body["metadata"]
        await self.scene.kubernetes.delete(
            HYBRIDJOB_SCHEDULES, self.scene.namespace, metadata["name"], uid=metadata["uid"]
        )


@pytest.fixture
async def schedules(scene: Scene) -> AsyncIterator[Schedules]:
    schedules = Schedules(scene)
    yield schedules
    for body in await scene.kubernetes.list(HYBRIDJOB_SCHEDULES, scene.namespace):
        await schedules.delete(body)


async def test_a_schedule_is_accepted_and_tells_its_next_tick(schedules: Schedules) -> None:
    body = await schedules.apply("yearly")
    status = await schedules.looked("yearly")
    [accepted] = status["conditions"]
    assert (accepted["type"], accepted["status"]) == ("Accepted", "True")
    assert status["nextScheduleTime"].endswith(f"-{_FAR_MONTH:02}-01T00:00:00Z")
    assert (status["active"], status["history"]) == (0, [])
    assert status["observedGeneration"] == body["metadata"]["generation"]
    assert "lastScheduleTime" not in status


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"schedule": "0 0 30 2 *"}, "NeverFires", "spec.schedule"),
        ({"schedule": "61 * * * *"}, "InvalidSchedule", "spec.schedule"),
        ({"timeZone": "Mars/Olympus"}, "UnknownTimeZone", "spec.timeZone"),
        ({"type": "test/typo"}, "UnknownType", "spec.type"),
    ],
)
async def test_a_fault_is_told_at_the_object(
    schedules: Schedules, spec: dict[str, Any], reason: str, words: str
) -> None:
    await schedules.apply("faulty", **spec)
    status = await schedules.looked("faulty")
    [accepted] = status["conditions"]
    assert (accepted["status"], accepted["reason"]) == ("False", reason)
    assert accepted["message"].startswith(words)
    assert "nextScheduleTime" not in status


async def test_a_fault_that_is_mended_is_forgotten(schedules: Schedules) -> None:
    await schedules.apply("mended", timeZone="Mars/Olympus")
    await schedules.looked("mended")
    await schedules.apply("mended", schedule="0 0 1 1 *", timeZone="Europe/Berlin")
    status = await schedules.looked("mended")
    assert status["conditions"][0]["status"] == "True"
    assert status["nextScheduleTime"].endswith("T23:00:00Z")


async def test_a_second_look_writes_nothing(schedules: Schedules) -> None:
    await schedules.apply("still")
    await schedules.looked("still")
    scene = schedules.scene
    before = await scene.kubernetes.get(HYBRIDJOB_SCHEDULES, scene.namespace, "still")
    await schedules.looked("still")
    after = await scene.kubernetes.get(HYBRIDJOB_SCHEDULES, scene.namespace, "still")
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


@pytest.mark.timeout(180)
async def test_a_tick_becomes_a_job_and_is_shown(schedules: Schedules) -> None:
    body = await schedules.apply("minutely", schedule="* * * * *")
    status = await schedules.looked("minutely")
    async with asyncio.timeout(100):
        while not status["history"]:
            await asyncio.sleep(1)
            status = await schedules.looked("minutely")
    [entry] = status["history"]
    async with schedules.scene.database.connection() as connection:
        [job] = await (await connection.execute(_JOBS)).fetchall()
    assert job == {
        "id": entry["jobId"],
        "key": f"{body['metadata']['uid']}/{entry['tickAt']}",
        "schedule": "minutely",
    }
    assert entry["decision"] == "submitted"
    assert (status["lastScheduleTime"], status["active"]) == (entry["tickAt"], 1)


async def test_one_that_was_deleted_unseen_ticks_no_more(schedules: Schedules) -> None:
    body = await schedules.apply("deleted")
    await schedules.looked("deleted")
    assert [each.uid for each in schedules.known.schedules()] == [body["metadata"]["uid"]]
    await schedules.delete(body)
    await schedules.reporter.once()
    assert schedules.known.schedules() == []
