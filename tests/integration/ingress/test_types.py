"""Pauses, what each type has to do, schedules and statistics, over real sockets."""

from typing import Any

import pytest

from hybridjobs.ids import new_id
from hybridjobs.model import AttemptEnd, Outcome
from tests.builders import job_type
from tests.integration.ingress.conftest import Running
from tests.integration.ingress.outcomes import claimed, end_all, failed_job


@pytest.fixture
async def api(ingress: Running) -> Running:
    await ingress.register(job_type(), job_type("test/other"))
    return ingress


def _line(answer: Any, type_: str) -> dict[str, Any]:
    [line] = [each for each in answer.json()["types"] if each["type"] == type_]
    return {name: line[name] for name in ("paused", "pausedBy", "waiting", "running")}


async def test_a_paused_type_starts_nothing(api: Running) -> None:
    for type_ in ("test/long", "test/other"):
        await api.submit(type_)
    answer = await api.api.post("/api/types/test/long/pause", content='{"by": "ana"}')
    assert answer.status_code == 200
    assert _line(answer, "test/long") == {
        "paused": True,
        "pausedBy": "ana",
        "waiting": 1,
        "running": 0,
    }
    assert not _line(answer, "test/other")["paused"]
    [started] = await claimed(api)
    assert (await api.job(started)).type == "test/other"
    # Encoded or not, the path names the same type.
    answer = await api.api.post("/api/types/test%2Flong/resume")
    assert not _line(answer, "test/long")["paused"]
    assert _line(answer, "test/other")["running"] == 1
    assert len(await end_all(api)) == 1


async def test_a_paused_queue_is_a_pause_of_every_type(api: Running) -> None:
    await api.api.post("/api/types/test/other/pause", content='{"by": "ana"}')
    answer = await api.api.post("/api/queue/pause", content='{"by": "ben"}')
    assert answer.json()["queue"]["pausedBy"] == "ben"
    assert [_line(answer, each)["pausedBy"] for each in ("test/long", "test/other")] == [
        "ben",
        "ana",
    ]
    await api.submit("test/long")
    await api.submit("test/other")
    assert await claimed(api) == []
    answer = await api.api.post("/api/queue/resume")
    assert answer.json()["queue"] == {"paused": False, "pausedAt": None, "pausedBy": None}
    [started] = await claimed(api)
    assert (await api.job(started)).type == "test/long"


async def test_an_unknown_type_is_not_paused(api: Running) -> None:
    for switch in ("pause", "resume"):
        answer = await api.api.post(f"/api/types/test/none/{switch}")
        assert answer.status_code == 404
        assert "test/long, test/other" in answer.json()["detail"]
    answer = await api.api.post("/api/types/test/long/pause", content='{"who": 1}')
    assert [error["path"] for error in answer.json()["errors"]] == ["/who"]


async def test_schedules_show_their_last_tick(api: Running) -> None:
    assert (await api.api.get("/api/schedules")).json() == {"schedules": []}
    job_id = (await api.submit("test/long")).json()["id"]
    async with api.database.connection() as connection:
        await connection.execute(
            "UPDATE hybridjobs.background_jobs SET schedule = 'nightly' WHERE id = %s", [job_id]
        )
        await connection.execute(
            "INSERT INTO hybridjobs.schedule_ticks "
            "(schedule_uid, tick_at, schedule, decision, job_id) VALUES "
            "('u', '2026-01-01T00:00Z', 'nightly', 'missed', NULL), "
            "('u', '2026-01-02T00:00Z', 'nightly', 'submitted', %s), "
            "('v', '2026-01-02T00:00Z', 'gone', 'skipped', NULL)",
            [job_id],
        )
    gone, nightly = (await api.api.get("/api/schedules")).json()["schedules"]
    assert (gone["name"], gone["openJobs"]) == ("gone", 0)
    del nightly["decidedAt"]
    assert nightly == {
        "name": "nightly",
        "tickAt": "2026-01-02T00:00:00Z",
        "decision": "submitted",
        "jobId": job_id,
        "openJobs": 1,
    }
    listed = (await api.api.get("/api/jobs?schedule=nightly")).json()["jobs"]
    assert [job["id"] for job in listed] == [job_id]


async def test_children_are_found_by_their_parent(api: Running) -> None:
    parent = new_id()
    job_id = (await api.submit("test/long")).json()["id"]
    async with api.database.connection() as connection:
        await connection.execute(
            "UPDATE hybridjobs.background_jobs SET parent_id = %s WHERE id = %s", [parent, job_id]
        )
    listed = (await api.api.get(f"/api/jobs?parent={parent}")).json()["jobs"]
    assert [job["id"] for job in listed] == [job_id]


async def test_statistics(api: Running) -> None:
    await failed_job(api)
    await api.submit("test/long")
    await end_all(api, AttemptEnd(Outcome.SUCCEEDED, "Completed"))
    await api.submit("test/other")
    answer = (await api.api.get("/api/statistics")).json()
    assert [line["metric"] for line in answer["summary"]][:2] == ["Total Jobs (24h)", "Queued"]
    assert {line["metric"]: line["value"] for line in answer["summary"]}["Failed"] == "1"
    [line] = answer["types"]
    assert (line["type"], line["failed"], line["successRatePercent"]) == ("test/long", 1, 50)
    assert {"status": "queued", "stage": "ready", "jobs": 1} in answer["queue"]
    assert answer["health"]["status"] in ("healthy", "degraded", "unhealthy")
    assert (answer["misplaced"], answer["stuck"]) == ([], [])
