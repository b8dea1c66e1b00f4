"""Prefer, the manual trigger, and the logs of jobs, over real sockets."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from hybridjobs.ingress.cluster import connected
from hybridjobs.model import MAX_LOG_TAIL_BYTES, AttemptEnd, Outcome
from hybridjobs.store import attempts
from hybridjobs.store.outcome import record_outcome
from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.ingress.conftest import Running, quick_type, running, settings
from tests.integration.ingress.outcomes import FAILED, claimed, end_all
from tests.integration.ingress.pod_logs import log_server
from tests.waiting import eventually


@pytest.fixture
async def api(ingress: Running) -> Running:
    await ingress.register(job_type(), job_type("test/other"))
    return ingress


async def prefer(api: Running, preference: str, type_: str = "test/long", **payload: Any) -> Any:
    body = {"type": type_, "payload": payload}
    return await api.api.post("/api/jobs", json=body, headers={"Prefer": preference})


def _tomorrow() -> str:
    return (datetime.now(UTC) + timedelta(days=1)).isoformat()


async def ended_soon(api: Running, end: AttemptEnd) -> list[UUID]:
    """The next job is taken and ended as soon as it is there."""
    jobs: list[UUID] = await eventually(lambda: end_all(api, end))
    return jobs


async def test_a_submission_that_waits_gets_the_outcome(api: Running) -> None:
    end = AttemptEnd(Outcome.SUCCEEDED, "Completed", result='{"n": 12345678901234567890.0}')
    answer, _ = await asyncio.gather(prefer(api, "wait=10"), ended_soon(api, end))
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=10")
    assert answer.json()["status"] == "completed"
    assert '"result":{"n": 12345678901234567890.0}' in answer.text


@pytest.mark.parametrize(
    ("asked", "setting", "applied"),
    [("wait=1", 60, 1), ("wait=600", 2, 2), ("respond-async, wait=1", 60, 1)],
)
async def test_it_waits_no_longer_than_it_says_or_the_setting_allows(
    database_urls: DatabaseUrls, asked: str, setting: float, applied: int
) -> None:
    async with running(database_urls.service, inline_children=0, max_wait_seconds=setting) as api:
        await api.register(job_type())
        began = time.monotonic()
        answer = await prefer(api, asked)
        assert applied - 0.1 < time.monotonic() - began < 20
        assert (answer.status_code, answer.json()["status"]) == (202, "queued")
        assert answer.headers["preference-applied"] == f"wait={applied}"


@pytest.mark.parametrize("preference", ["", "wait", "wait=soon", "handling=lenient", "x=wait", ";"])
async def test_what_is_not_understood_is_left_out(api: Running, preference: str) -> None:
    answer = await prefer(api, preference)
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


async def test_a_quick_job_is_answered_at_once_when_asked_to(
    quick_ingress: Callable[..., Any],
) -> None:
    api = await quick_ingress(quick_type("quick/pid"))
    answer = await prefer(api, "Respond-Async", "quick/pid", seconds=1)
    assert (answer.status_code, answer.json()["status"]) == (202, "processing")
    assert answer.headers["preference-applied"] == "respond-async"
    answer = await prefer(api, "wait=1", "quick/pid", seconds=3)
    # Its three seconds are not over.
    assert (answer.status_code, answer.json()["status"]) == (202, "processing")
    answer = await prefer(api, "wait=10", "quick/pid", seconds=0)
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")


async def test_the_trigger_names_the_next_in_line(api: Running) -> None:
    answer = await api.api.post("/api/process-job")
    assert (answer.status_code, answer.json()["jobId"]) == (200, None)
    await api.submit("test/long", runAt=_tomorrow())
    last = (await api.submit("test/long")).json()["id"]
    first = (await api.submit("test/other", priority=50)).json()["id"]
    answer = await api.api.post("/api/process-job", json={})
    assert (answer.status_code, answer.json()) == (
        202,
        {"jobId": first, "type": "test/other", "status": "queued", "url": f"/api/jobs/{first}"},
    )
    await api.api.post("/api/types/test/other/pause")
    assert (await api.api.post("/api/process-job", json={})).json()["jobId"] == last
    await api.api.post("/api/queue/pause")
    assert (await api.api.post("/api/process-job", json={})).json()["jobId"] is None


async def test_the_trigger_makes_a_job_due_and_waits_for_its_outcome(api: Running) -> None:
    job_id = (await api.submit("test/long", runAt=_tomorrow())).json()["id"]
    assert await claimed(api) == []
    end = AttemptEnd(Outcome.SUCCEEDED, "Completed", result="[1.0]")
    answer, jobs = await asyncio.gather(
        api.api.post("/api/process-job", json={"jobId": job_id, "immediate": True}),
        ended_soon(api, end),
    )
    assert jobs == [UUID(job_id)]
    assert answer.status_code == 200
    found = answer.json()
    assert (found["status"], found["success"], found["result"]) == ("completed", True, [1.0])
    # It is over: it does not run again, as it would have there.
    answer = await api.api.post("/api/process-job", json={"jobId": job_id, "immediate": True})
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    assert (await api.job(job_id)).attempt == 1


async def test_the_trigger_answers_in_time_and_for_failures(api: Running) -> None:
    job_id = (await api.submit("test/long")).json()["id"]
    body = {"jobId": job_id, "immediate": True}
    answer = await api.api.post("/api/process-job", json=body, headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert answer.headers["preference-applied"] == "wait=1"
    await end_all(api, FAILED)
    found = (await api.api.post("/api/process-job", json=body)).json()
    assert (found["success"], found["error"]) == (False, "no such customer")
    answer = await api.api.post("/api/process-job", json={"jobId": str(uuid4())})
    assert answer.status_code == 404
    answer = await api.api.post("/api/process-job", json={"jobId": "x", "immediate": 1, "z": 1})
    paths = [error["path"] for error in answer.json()["errors"]]
    assert (answer.status_code, sorted(paths)) == (422, ["/immediate", "/jobId", "/z"])


async def test_logs_are_the_stored_tail_of_an_attempt(api: Running) -> None:
    job_id = (await api.submit("test/long")).json()["id"]
    path = f"/api/jobs/{job_id}/logs"
    answer = await api.api.get(path)
    assert (answer.status_code, answer.text) == (200, "")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    for number, log_tail in ((1, "först\n"), (2, "second\n")):
        async with api.database.transaction() as connection:
            await connection.execute("UPDATE hybridjobs.background_jobs SET run_at = now()")
        [claim] = await claimed(api)
        assert (await api.api.get(path)).text == ""
        async with api.database.transaction() as connection:
            end = AttemptEnd(Outcome.FAILED, "Error", "transient", log_tail=log_tail)
            await record_outcome(connection, claim, number, end)
    answer = await api.api.get(path)
    assert (answer.text, answer.headers["hybridjobs-attempt"]) == ("second\n", "2")
    assert (await api.api.get(path, params={"attempt": 1})).text == "först\n"
    assert (await api.api.get(path, params={"attempt": 3})).status_code == 404
    assert (await api.api.get(path, params={"attempt": 0})).status_code == 422
    assert (await api.api.get(f"/api/jobs/{uuid4()}/logs")).status_code == 404


async def test_logs_come_from_the_pod_while_it_runs(
    database_urls: DatabaseUrls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as stack:
        api_server = await stack.enter_async_context(log_server(tmp_path))
        monkeypatch.setenv("KUBECONFIG", str(api_server.kubeconfig))
        own = settings(database_urls.service)
        cluster = await stack.enter_async_context(connected(own, knows_callers=False))
        api = await stack.enter_async_context(
            running(database_urls.service, inline_children=0, cluster=cluster)
        )
        await api.register(job_type())
        job_id = (await api.submit("test/long")).json()["id"]
        async with api.database.transaction() as connection:
            await connection.execute(
                "INSERT INTO hybridjobs.job_attempts"
                " (job_id, attempt, runner, deadline_seconds, dispatched_at)"
                " VALUES (%s, 1, 'pod', 900, now())",
                [job_id],
            )
            await connection.execute(
                "UPDATE hybridjobs.background_jobs SET attempt = 1, dispatched_at = now(),"
                " stage = NULL"
            )
            job = await api.job(job_id)
            await attempts.start(
                connection, job.id, 1, pod_name="hj-1", pod_uid="uid", started_at=job.created_at
            )
        path = f"/api/jobs/{job_id}/logs"
        api_server.logs["jobs/hj-1"] = b"first\n" + b"x" * 99 * 1000 + b"\nlast \xff\n"
        text = (await api.api.get(path)).text
        assert text.endswith("x\nlast �\n")
        assert len(text) == MAX_LOG_TAIL_BYTES
        del api_server.logs["jobs/hj-1"]
        assert (await api.api.get(path)).text == ""
        api_server.status = 503
        answer = await api.api.get(path)
        assert (answer.status_code, answer.json()["title"]) == (503, "Unavailable")
        async with api.database.transaction() as connection:
            end = AttemptEnd(Outcome.SUCCEEDED, "Completed", log_tail="kept\n")
            await record_outcome(connection, job.id, 1, end)
        assert (await api.api.get(path)).text == "kept\n"
