"""The ingress as the process that it is in production: its start, its end, its log."""

import asyncio
import json
import os
import signal
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from hybridjobs.ingress.app import Ingress
from hybridjobs.store.embedded import EmbeddedPostgres
from tests.builders import job_type, register
from tests.conftest import DatabaseUrls, service_shut_out
from tests.integration.ingress.conftest import SECRET, TOKEN, quick_type, running, settings
from tests.integration.ingress.process import started
from tests.recorded import deliveries, signed_headers
from tests.waiting import eventually

OPENED = next(d for d in deliveries() if d.event == "pull_request" and d.action == "opened")


@pytest.fixture
async def types(database_urls: DatabaseUrls) -> None:
    async with await psycopg.AsyncConnection.connect(
        database_urls.service, autocommit=True, row_factory=dict_row
    ) as connection:
        await register(connection, job_type(events=["github/pull_request.opened"]))


async def _keys(url: str) -> set[str]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute("SELECT key FROM hybridjobs.background_jobs")
        return {row[0] for row in await cursor.fetchall()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_0(
    database_urls: DatabaseUrls, types: None, number: signal.Signals
) -> None:
    async with started(database_urls.service) as process, httpx.AsyncClient(timeout=30) as client:
        await process.ready()
        assert await process.deliver(client, "one") == 202
        code, log = await process.end(number)
    assert code == 0, log
    assert "ingress stopped" in log
    assert await _keys(database_urls.service) == {"one"}


async def test_killed_under_load_every_2xx_has_its_row(
    database_urls: DatabaseUrls, types: None
) -> None:
    accepted: set[str] = set()
    async with started(database_urls.service) as process, httpx.AsyncClient(timeout=30) as client:
        await process.ready()

        async def deliver(number: int) -> None:
            for sent in range(10_000):
                delivery_id = f"{number}-{sent}"
                try:
                    if await process.deliver(client, delivery_id) == 202:
                        accepted.add(delivery_id)
                except httpx.TransportError:
                    return

        load = asyncio.gather(*(deliver(number) for number in range(8)))
        await eventually(lambda: len(accepted) > 100)
        code, _ = await process.end(signal.SIGKILL)
        await load
    assert code == -signal.SIGKILL
    assert accepted <= await _keys(database_urls.service)


async def test_quick_jobs_run_and_their_children_end_with_it(
    database_urls: DatabaseUrls, installed_handlers: None
) -> None:
    async with await psycopg.AsyncConnection.connect(
        database_urls.service, autocommit=True, row_factory=dict_row
    ) as connection:
        await register(connection, quick_type("quick/pid"), quick_type("quick/blocks"))
    authorization = {"Authorization": f"Bearer {TOKEN}"}
    async with started(database_urls.service) as process, httpx.AsyncClient(timeout=30) as client:
        await process.ready()

        async def submit(type_: str) -> httpx.Response:
            return await client.post(
                f"{process.url('api')}/api/jobs",
                content=f'{{"type":"{type_}","payload":{{}}}}',
                headers=authorization,
            )

        blocked, child = await asyncio.gather(submit("quick/blocks"), submit("quick/pid"))
        assert (blocked.status_code, child.status_code) == (202, 200)
        code, log = await process.end(signal.SIGTERM)
    assert code == 0, log
    with pytest.raises(ProcessLookupError):
        os.kill(child.json()["result"]["pid"], 0)


async def test_its_log_holds_no_secret_and_no_payload(
    database_urls: DatabaseUrls, database_url: str, types: None
) -> None:
    async with (
        started(database_urls.service, HYBRIDJOBS_LOG_LEVEL="debug") as process,
        httpx.AsyncClient(timeout=30) as client,
    ):
        await process.ready()
        api = f"{process.url('api')}/api/jobs"
        assert await process.deliver(client, "one") == 202
        await client.post(api, headers={"Authorization": f"Bearer {TOKEN}x"}, content="{")
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as owner:
            await owner.execute("ALTER TABLE hybridjobs.background_jobs RENAME COLUMN key TO gone")
        assert await process.deliver(client, "two") == 500
        await client.post(
            api,
            headers={"Authorization": f"Bearer {TOKEN}"},
            content='{"type":"test/long","payload":{"note":"a-private-note"}}',
        )
        async with service_shut_out(database_url):
            assert await process.deliver(client, "three") == 503
        _, log = await process.end(signal.SIGTERM)
    assert "request failed" in log
    assert all(json.loads(line)["event"] for line in log.splitlines())
    signature = signed_headers(SECRET, OPENED, delivery_id="one")["x-hub-signature-256"]
    assert signature.removeprefix("sha256=") not in log
    for secret in (SECRET, TOKEN, "a-private-note", "password=service", OPENED.id, "head_branch"):
        assert secret not in log


async def test_a_database_without_the_schema_is_named_at_the_start(
    postgres: EmbeddedPostgres,
) -> None:
    async with started(make_conninfo(postgres.url, dbname="postgres")) as process:
        code = await process.process.wait()
        _, log = await process.end(signal.SIGKILL)
    assert code != 0
    [line] = [json.loads(line) for line in log.splitlines()]
    assert (line["event"], "run `hybridjobs migrate`" in line["error"]) == ("ended", True)


async def test_a_port_that_is_taken_is_named_at_the_start(database_urls: DatabaseUrls) -> None:
    async with running(database_urls.service, inline_children=0) as other:
        taken = str(other.ports.api)
        async with started(database_urls.service, HYBRIDJOBS_API_PORT=taken) as process:
            code = await process.process.wait()
            _, log = await process.end(signal.SIGKILL)
    assert code != 0
    last = json.loads(log.splitlines()[-1])
    assert last["error"].startswith(f"cannot listen on 127.0.0.1, port {taken}")
    assert "Traceback" not in log


async def test_a_part_that_ends_takes_the_process_with_it(database_urls: DatabaseUrls) -> None:
    ingress = Ingress(settings(database_urls.service, inline_children=0), keys=None)
    task = asyncio.create_task(ingress.run(asyncio.Event()))
    ports = await ingress.ports
    (part,) = [each for each in asyncio.all_tasks() if each.get_name() == "types"]
    part.cancel()
    with pytest.raises(RuntimeError, match="types ended by itself"):
        await task
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", ports.webhooks)


async def test_metrics_of_the_whole_way(database_urls: DatabaseUrls, types: None) -> None:
    async with running(database_urls.service, inline_children=0) as ingress:
        for delivery_id in ("a", "a"):
            await ingress.webhooks.post(
                "/webhooks/github",
                content=OPENED.payload,
                headers=signed_headers(SECRET, OPENED, delivery_id=delivery_id),
            )
        await ingress.webhooks.post("/webhooks/github", content=b"{}")
        text = (await ingress.health.get("/metrics")).text
    values: dict[str, Any] = dict(
        line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")
    )
    for name in (
        'hybridjobs_webhook_requests_total{result="accepted",source="github"}',
        'hybridjobs_webhook_requests_total{result="replayed",source="github"}',
        'hybridjobs_webhook_requests_total{result="refused",source="github"}',
        'hybridjobs_jobs_enqueued_total{source="github",type="test/long"}',
        'hybridjobs_http_requests_total{code="202",listener="webhooks"}',
        'hybridjobs_http_requests_total{code="401",listener="webhooks"}',
        "hybridjobs_group_commit_events_count",
    ):
        assert float(values[name]) >= 1, name
