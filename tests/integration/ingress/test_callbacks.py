"""Callbacks by way of the API: asked for, delivered, looked at, sent again."""

import json
import signal
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from tests.builders import job_type, register
from tests.conftest import DatabaseUrls
from tests.integration.callbacks.receiver import answers, never_answers, receiving
from tests.integration.ingress.conftest import TOKEN, Running, running
from tests.integration.ingress.process import started
from tests.waiting import eventually

SECRET = "whsec_" + b64encode(b"s" * 32).decode()
URL = "https://receiver.example/done"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "default").write_text(SECRET)
    return tmp_path


@pytest.fixture
async def told(database_urls: DatabaseUrls, folder: Path) -> AsyncIterator[Running]:
    """An ingress whose jobs may call back to loopback addresses."""
    async with running(
        database_urls.service,
        inline_children=0,
        callback_secrets_dir=str(folder),
        callback_allow="127.0.0.0/8",
    ) as ingress:
        await ingress.register(job_type())
        yield ingress


async def _in_status(ingress: Running, job_id: str, status: str) -> dict[str, Any]:
    async def found() -> dict[str, Any] | None:
        page = (await ingress.api.get(f"/api/callbacks?job={job_id}")).json()["callbacks"]
        return next((each for each in page[:1] if each["status"] == status), None)

    first: dict[str, Any] = await eventually(found)
    return first


async def test_a_submitted_job_calls_back_when_it_ends(told: Running) -> None:
    async with receiving(answers(200, b"thanks")) as receiver:
        callback = {"url": receiver.url(), "on": ["cancelled"]}
        job_id = (await told.submit("test/long", key="k", callback=callback)).json()["id"]
        shown = (await told.api.get(f"/api/jobs/{job_id}")).json()
        assert shown["callbacks"] == [callback]
        assert (await told.api.get(f"/api/callbacks?job={job_id}")).json() == {
            "callbacks": [],
            "next": None,
        }
        await told.api.post(f"/api/jobs/{job_id}/cancel")
        [message] = await receiver.received()
        message.verify(SECRET)
        assert message.json["type"] == "job.cancelled"
        line = await _in_status(told, job_id, "delivered")
    found = (await told.api.get(f"/api/callbacks/{line['id']}")).json()
    assert found["id"] == message.id
    assert found["body"] == message.json
    assert found["response"] == "thanks"
    assert [each["code"] for each in found["tries"]] == [200]
    metrics = (await told.health.get("/metrics")).text
    assert 'hybridjobs_callback_tries_total{result="delivered"} ' in metrics


async def test_types_and_jobs_of_a_batch_call_back(told: Running) -> None:
    async with receiving() as receiver:
        await told.register(
            job_type("test/told", callback={"url": receiver.url("/type"), "events": ["cancelled"]})
        )
        jobs = [
            {"type": "test/told", "payload": {}, "callback": {"url": receiver.url("/own")}},
            {"type": "test/told", "payload": {}},
        ]
        batch = await told.api.post("/api/jobs:batch", content=json.dumps({"jobs": jobs}))
        listed = (await told.api.get(f"/api/jobs?batch={batch.json()['id']}")).json()["jobs"]
        for job in listed:
            await told.api.post(f"/api/jobs/{job['id']}/cancel")
        messages = await receiver.received(3)
    assert sorted(message.path for message in messages) == ["/own", "/type", "/type"]


async def test_a_delivered_one_goes_again_under_its_id(told: Running) -> None:
    async with receiving(answers(410), answers(200), answers(200)) as receiver:
        job_id = (await told.submit("test/long", callback={"url": receiver.url()})).json()["id"]
        await told.api.post(f"/api/jobs/{job_id}/cancel")
        line = await _in_status(told, job_id, "disabled")
        again = await told.api.post(f"/api/callbacks/{line['id']}/redeliver")
        assert (again.status_code, again.json()) == (202, {"id": line["id"], "status": "pending"})
        await _in_status(told, job_id, "delivered")
        await told.api.post(f"/api/callbacks/{line['id']}/redeliver")
        messages = await receiver.received(3)
    assert {message.id for message in messages} == {line["id"]}


async def test_one_that_is_being_sent_does_not_go_twice(told: Running) -> None:
    async with receiving(never_answers) as receiver:
        job_id = (await told.submit("test/long", callback={"url": receiver.url()})).json()["id"]
        await told.api.post(f"/api/jobs/{job_id}/cancel")
        [message] = await receiver.received()
        again = await told.api.post(f"/api/callbacks/{message.id}/redeliver")
    assert again.status_code == 409
    assert again.json()["title"] == "Being delivered"


async def test_listings_are_filtered_and_paged(told: Running) -> None:
    await told.register(job_type("test/other"))
    async with receiving() as receiver:
        ids = []
        for type_ in ("test/long", "test/long", "test/other"):
            answer = await told.submit(type_, callback={"url": receiver.url()})
            ids.append(answer.json()["id"])
            await told.api.post(f"/api/jobs/{ids[-1]}/cancel")
        for job_id in ids:
            await _in_status(told, job_id, "delivered")

    async def jobs(query: str) -> list[str]:
        page = (await told.api.get(f"/api/callbacks{query}")).json()
        return [each["jobId"] for each in page["callbacks"]]

    assert await jobs("") == ids[::-1]
    assert await jobs("?type=test/other") == [ids[2]]
    assert await jobs("?status=failed") == []
    page = (await told.api.get("/api/callbacks?limit=2")).json()
    assert await jobs(f"?before={page['next']}") == [ids[0]]


@pytest.mark.parametrize(
    ("callback", "path"),
    [
        ("https://receiver.example", "/callback"),
        ({}, "/callback"),
        ({"url": 1}, "/callback"),
        ({"url": "http://receiver.example"}, "/callback/url"),
        ({"url": "https://10.0.0.1/"}, "/callback/url"),
        ({"url": "https://a:b@receiver.example"}, "/callback/url"),
        ({"url": URL, "secret": "x"}, "/callback/secret"),
        ({"url": URL, "on": []}, "/callback/on"),
        ({"url": URL, "on": "failed"}, "/callback/on"),
        ({"url": URL, "on": ["failed", "started"]}, "/callback/on/1"),
        ({"url": URL, "on": [["failed"]]}, "/callback/on/0"),
    ],
)
async def test_what_cannot_be_called_is_refused_by_its_path(
    told: Running, callback: Any, path: str
) -> None:
    answer = await told.submit("test/long", callback=callback)
    assert answer.status_code == 422
    assert [error["path"] for error in answer.json()["errors"]] == [path]
    batch = {"jobs": [{"type": "test/long", "payload": {}, "callback": callback}]}
    answer = await told.api.post("/api/jobs:batch", content=json.dumps(batch))
    assert [error["path"] for error in answer.json()["errors"]] == [f"/jobs/0{path}"]
    assert await told.count() == 0


async def test_an_ingress_without_secrets_takes_no_callbacks(ingress: Running) -> None:
    await ingress.register(job_type())
    answer = await ingress.submit("test/long", callback={"url": URL})
    assert answer.status_code == 422
    assert "HYBRIDJOBS_CALLBACK_SECRETS_DIR" in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    "path", ["/api/callbacks/x", "/api/callbacks/01a20d45-6dad-78f7-a439-5c7cd2f5a863"]
)
async def test_an_unknown_callback_is_404(told: Running, path: str) -> None:
    assert (await told.api.get(path)).status_code == 404
    assert (await told.api.post(f"{path}/redeliver")).status_code == 404


async def test_a_process_killed_between_the_send_and_its_record_sends_again(
    database_urls: DatabaseUrls, folder: Path
) -> None:
    """At least once: the receiver sees the same webhook-id, by which it knows."""
    environment = {
        "HYBRIDJOBS_CALLBACK_SECRETS_DIR": str(folder),
        "HYBRIDJOBS_CALLBACK_ALLOW": "127.0.0.0/8",
        "HYBRIDJOBS_INLINE_CHILDREN": "0",
    }
    async with (
        await psycopg.AsyncConnection.connect(
            database_urls.service, autocommit=True, row_factory=dict_row
        ) as connection,
        receiving(never_answers, answers(200)) as receiver,
    ):
        await register(connection, job_type())
        async with started(database_urls.service, **environment) as first:
            await first.ready()
            authorization = {"Authorization": f"Bearer {TOKEN}"}
            async with httpx.AsyncClient(headers=authorization, timeout=30) as client:
                api = first.url("api")
                body = {
                    "type": "test/long",
                    "payload": {},
                    "callback": {"url": receiver.url()},
                }
                job = (await client.post(f"{api}/api/jobs", json=body)).json()
                await client.post(f"{api}/api/jobs/{job['id']}/cancel")
            # It has the message, and will not answer before the process is gone.
            await receiver.received(1)
            await first.end(signal.SIGKILL)
        await connection.execute(
            "UPDATE hybridjobs.callback_deliveries SET next_at = now() + interval '1 s'"
        )
        async with started(database_urls.service, **environment) as second:
            await second.ready()
            messages = await receiver.received(2)
            assert messages[0].id == messages[1].id
            assert messages[0].body == messages[1].body
            messages[1].verify(SECRET)
            _, log = await second.end(signal.SIGTERM)
        cursor = await connection.execute(
            "SELECT status, attempts FROM hybridjobs.callback_deliveries"
        )
        assert await cursor.fetchall() == [{"status": "delivered", "attempts": 2}]
        assert SECRET not in log
