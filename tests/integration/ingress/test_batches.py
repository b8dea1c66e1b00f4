"""Batches over real sockets: all or nothing, counted, waited for."""

import asyncio
import json
import time
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from hybridjobs.ingress import batch_requests
from hybridjobs.ingress.api import batches
from hybridjobs.ingress.batch_requests import MAX_BATCH_BYTES
from tests.builders import job_type
from tests.integration.ingress.conftest import TOKEN, Running
from tests.integration.ingress.outcomes import FAILED, end_all


@pytest.fixture
async def api(ingress: Running) -> Running:
    await ingress.register(job_type(), job_type("test/strict", payloadSchema={"type": "integer"}))
    return ingress


def _job(type_: str = "test/long", payload: Any = None, **members: Any) -> dict[str, Any]:
    return {"type": type_, "payload": {} if payload is None else payload, **members}


async def _submit(api: Running, *jobs: dict[str, Any], **members: Any) -> httpx.Response:
    return await api.api.post("/api/jobs:batch", content=json.dumps({"jobs": jobs, **members}))


async def _members(api: Running, batch_id: str) -> list[dict[str, Any]]:
    answer = await api.api.get("/api/jobs", params={"batch": batch_id, "limit": 1000})
    jobs: list[dict[str, Any]] = answer.json()["jobs"]
    return jobs


async def test_a_batch_is_accepted_counted_and_finished(api: Running) -> None:
    answer = await _submit(api, *[_job() for _ in range(3)], _job(priority=9))
    assert answer.status_code == 202
    batch_id = answer.json()["id"]
    url = f"/api/batches/{batch_id}"
    assert answer.json() == {"id": batch_id, "total": 4, "url": url}
    assert answer.headers["location"] == url
    assert len(await _members(api, batch_id)) == 4
    batch = (await api.api.get(url)).json()
    assert (batch["total"], batch["finished"], batch["key"]) == (4, False, None)
    assert batch["counts"] == {
        "queued": 4,
        "processing": 0,
        "completed": 0,
        "failed": 0,
        "cancelled": 0,
    }
    await end_all(api)
    batch = (await api.api.get(url)).json()
    assert (batch["counts"]["completed"], batch["finished"]) == (4, True)


async def test_the_same_key_gives_the_same_batch(api: Running) -> None:
    first, second = [await _submit(api, _job(), _job(), key="k") for _ in range(2)]
    assert second.status_code == 202
    assert second.json() == {**first.json(), "replayed": True}
    assert await api.count() == 2


async def test_one_key_at_once_is_one_batch(api: Running) -> None:
    answers = await asyncio.gather(*[_submit(api, _job(), _job(), key="k") for _ in range(8)])
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await api.count() == 2


async def test_members_run_in_the_order_of_their_dependencies(api: Running) -> None:
    outside = (await api.submit("test/long")).json()["id"]
    answer = await _submit(
        api,
        _job(payload="last", dependsOn=["one", "two"]),
        _job(payload="one", ref="one", dependsOn=[outside]),
        _job(payload="two", ref="two", dependsOn=["one"]),
    )
    members = {job["id"] for job in await _members(api, answer.json()["id"])}
    order = []
    while jobs := await end_all(api):
        order += [(await api.job(job_id)).payload for job_id in jobs if str(job_id) in members]
    assert order == ['"one"', '"two"', '"last"']


async def test_a_member_with_a_known_key_is_the_earlier_job(api: Running) -> None:
    earlier = (await api.submit("test/long", key="k")).json()["id"]
    answer = await _submit(
        api,
        _job(key="k", ref="known"),
        _job(key="new", ref="twin"),
        _job(key="new", ref="again", dependsOn=["known"]),
        _job(payload="last", dependsOn=["known", "again"]),
    )
    assert answer.json()["total"] == 2
    [last, twin] = sorted(await _members(api, answer.json()["id"]), key=lambda job: job["stage"])
    waits_for = (await api.api.get(f"/api/jobs/{last['id']}")).json()["waitsFor"]
    assert set(waits_for) == {earlier, twin["id"]}
    assert (await api.job(earlier)).batch_id is None
    while await end_all(api):
        pass
    assert (await api.api.get(answer.json()["url"])).json()["finished"]


async def test_a_failure_cancels_what_depends_on_it(api: Running) -> None:
    answer = await _submit(
        api, _job(ref="a"), _job(ref="b", dependsOn=["a"]), _job(dependsOn=["b"])
    )
    await end_all(api, FAILED)
    await end_all(api)
    batch = (await api.api.get(answer.json()["url"])).json()
    assert batch["finished"]
    assert (batch["counts"]["failed"], batch["counts"]["cancelled"]) == (1, 2)


async def test_a_wait_ends_with_the_last_job(api: Running) -> None:
    url = (await _submit(api, _job())).json()["url"]
    began = time.monotonic()
    assert not (await api.api.get(url, params={"wait": 1})).json()["finished"]
    assert 0.9 < time.monotonic() - began < 15
    waiting = asyncio.create_task(api.api.get(url, params={"wait": 20}))
    await asyncio.sleep(0.2)
    began = time.monotonic()
    await end_all(api)
    assert (await waiting).json()["finished"]
    assert time.monotonic() - began < 15
    assert (await api.api.get(url, params={"wait": 61})).status_code == 422


async def test_a_wait_does_not_hold_up_the_end_of_the_ingress(api: Running) -> None:
    url = (await _submit(api, _job())).json()["url"]
    waiting = asyncio.create_task(api.api.get(url, params={"wait": 60}))
    await asyncio.sleep(0.2)
    began = time.monotonic()
    api.stop.set()
    assert not (await waiting).json()["finished"]
    await api.task
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("jobs", "paths"),
    [
        ([_job(), _job("test/none")], ["/jobs/1/type"]),
        ([_job(), _job("test/strict")], ["/jobs/1/payload"]),
        ([_job(payload={"s": "\0"})], ["/jobs/0/payload/s"]),
        ([_job(payload="x" * 256 * 1024)], ["/jobs/0/payload"]),
        ([_job(), _job(dependsOn=[str(UUID(int=1))])], ["/jobs/1/dependsOn/0"]),
        ([_job(ref="a", dependsOn=["a"])], ["/jobs/0/dependsOn"]),
    ],
)
async def test_one_fault_refuses_the_whole_batch(
    api: Running, jobs: list[dict[str, Any]], paths: list[str]
) -> None:
    answer = await _submit(api, *jobs, key="k")
    assert answer.status_code == 422, answer.text
    assert [error["path"] for error in answer.json()["errors"]] == paths
    assert await api.count() == 0
    assert not (await _submit(api, _job(), key="k")).json().get("replayed", False)


@pytest.mark.parametrize("body", ["", "[]", '{"jobs":[NaN]}', '{"jobs":[' + "[" * 5000 + "]}"])
async def test_what_is_no_json_object(api: Running, body: str) -> None:
    assert (await api.api.post("/api/jobs:batch", content=body)).status_code == 400


async def test_a_body_over_the_limit(api: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.ports.api)
    head = f"POST /api/jobs:batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    writer.write(f"{head}Content-Length: {MAX_BATCH_BYTES + 1}\r\n\r\n".encode())
    assert b" 413 " in await reader.readline()
    writer.close()


async def test_ten_thousand_jobs_are_one_request(api: Running) -> None:
    jobs = [_job(ref=str(place)) for place in range(9_999)]
    jobs.append(_job(dependsOn=[job["ref"] for job in jobs]))
    began = time.monotonic()
    waiting = asyncio.create_task(_submit(api, *jobs))
    longest = 0.0
    while not waiting.done():
        asked = time.monotonic()
        await api.api.get("/api/jobs?limit=1")
        longest = max(longest, time.monotonic() - asked)
    answer = await waiting
    assert (answer.status_code, answer.json()["total"]) == (202, 10_000)
    assert time.monotonic() - began < 30
    assert longest < 2, "others are served meanwhile"
    assert await api.count() == 10_000


async def test_a_batch_that_is_not_there(api: Running) -> None:
    assert (await api.api.get(f"/api/batches/{uuid4()}")).status_code == 404
    assert (await api.api.get("/api/batches/nonsense")).status_code == 404


@pytest.mark.parametrize(("large_bytes", "at_once"), [(0, {1}), (1_000_000, {2, 3, 4, 5})])
async def test_large_batches_are_worked_on_one_at_a_time(
    api: Running, monkeypatch: pytest.MonkeyPatch, large_bytes: int, at_once: set[int]
) -> None:
    read, running, most = batch_requests.rows_of_batch, 0, 0

    def slow(*arguments: Any, **named: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.2)
        running -= 1
        return read(*arguments, **named)

    monkeypatch.setattr(batches, "_LARGE_BYTES", large_bytes)
    monkeypatch.setattr(batches, "rows_of_batch", slow)
    answers = await asyncio.gather(*(_submit(api, _job()) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {202}
    assert most in at_once
