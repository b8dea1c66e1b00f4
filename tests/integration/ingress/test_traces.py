"""A job's trace, as a collector of OpenTelemetry's gets it from the processes that work on it."""

import signal
from base64 import b64encode
from pathlib import Path

import httpx
import psycopg
from psycopg.rows import dict_row

from tests.builders import job_type, register
from tests.conftest import DatabaseUrls
from tests.integration.callbacks.receiver import receiving
from tests.integration.ingress.conftest import TOKEN, quick_type
from tests.integration.ingress.process import started
from tests.otlp import collecting
from tests.waiting import eventually

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SENDER = f"00-{TRACE}-00f067aa0ba902b7-01"
AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}


def _sent_to(url: str) -> dict[str, str]:
    sent = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    return sent | {f"HYBRIDJOBS_CHILD_ENV_{name}": value for name, value in sent.items()}


async def test_a_quick_job_is_one_trace_from_the_request_to_the_callback(
    database_urls: DatabaseUrls, installed_handlers: None, tmp_path: Path
) -> None:
    (tmp_path / "default").write_text("whsec_" + b64encode(b"s" * 32).decode())
    with collecting() as collector:
        async with (
            await psycopg.AsyncConnection.connect(
                database_urls.service, autocommit=True, row_factory=dict_row
            ) as connection,
            receiving() as receiver,
            httpx.AsyncClient(timeout=30) as client,
        ):
            await register(connection, quick_type("quick/echo"))
            async with started(
                database_urls.service,
                HYBRIDJOBS_CALLBACK_SECRETS_DIR=str(tmp_path),
                HYBRIDJOBS_CALLBACK_ALLOW="127.0.0.0/8",
                **_sent_to(collector.url),
            ) as process:
                await process.ready()
                answer = await client.post(
                    f"{process.url('api')}/api/jobs",
                    headers=AUTHORIZATION | {"traceparent": SENDER},
                    json={
                        "type": "quick/echo",
                        "payload": {},
                        "callback": {"url": receiver.url()},
                    },
                )
                assert answer.status_code == 200, answer.text
                [told] = await receiver.received(1)
                await eventually(lambda: len(collector.trace(TRACE)) == 5)
                code, log = await process.end(signal.SIGTERM)
            assert code == 0, log
            cursor = await connection.execute("SELECT traceparent FROM hybridjobs.background_jobs")
            [row] = await cursor.fetchall()
    spans = collector.trace(TRACE)
    receive, attempt, callback = spans["receive"], spans["attempt"], spans["callback"]
    assert receive.parent == "00f067aa0ba902b7"
    assert row["traceparent"] == receive.traceparent
    assert {spans[name].parent for name in ("enqueue", "attempt", "callback")} == {receive.id}
    assert spans["handler"].parent == attempt.id
    assert {each.name: each.service for each in spans.values()} == {
        "receive": "hybridjobs-ingress",
        "enqueue": "hybridjobs-ingress",
        "attempt": "hybridjobs-ingress",
        "callback": "hybridjobs-ingress",
        "handler": "hybridjobs-worker",
    }
    assert told.headers["traceparent"] == callback.traceparent
    assert attempt.attributes == {
        "hybridjobs.job.id": answer.json()["id"],
        "hybridjobs.job.type": "quick/echo",
        "hybridjobs.attempt": 1,
        "hybridjobs.outcome": "succeeded",
    }
    assert receive.attributes["http.response.status_code"] == 200
    assert not [each for each in spans.values() if each.failed]


async def test_a_request_begins_a_trace_and_a_job_without_a_request_has_its_own(
    database_urls: DatabaseUrls, installed_handlers: None
) -> None:
    with collecting() as collector:
        async with (
            await psycopg.AsyncConnection.connect(
                database_urls.service, autocommit=True, row_factory=dict_row
            ) as connection,
            httpx.AsyncClient(timeout=30) as client,
        ):
            await register(connection, job_type(), quick_type("quick/refuses"))
            async with started(database_urls.service, **_sent_to(collector.url)) as process:
                await process.ready()
                api = f"{process.url('api')}/api/jobs"
                body = {"type": "test/long", "payload": {}}
                answer = await client.post(api, headers=AUTHORIZATION, json=body)
                assert answer.status_code == 202, answer.text
                body["type"] = "quick/refuses"
                unsampled = {"traceparent": f"{SENDER[:-2]}00"}
                await client.post(api, headers=AUTHORIZATION | unsampled, json=body)
                refused = await client.post(api, headers={"traceparent": SENDER}, json=body)
                assert refused.status_code == 401
                await process.end(signal.SIGTERM)
            cursor = await connection.execute(
                "SELECT traceparent FROM hybridjobs.background_jobs ORDER BY id"
            )
            begun, passed_on = [row["traceparent"] for row in await cursor.fetchall()]
    [trace_id] = {each.trace_id for each in collector.spans} - {TRACE}
    spans = collector.trace(trace_id)
    assert (spans["receive"].parent, spans["receive"].traceparent) == ("", begun)
    assert spans.keys() == {"receive", "enqueue"}
    # Who did not want to be traced is not, nor what comes of it.
    assert (passed_on[3:35], passed_on[-2:]) == (TRACE, "00")
    [refusal] = collector.trace(TRACE).values()
    assert (refusal.name, refusal.attributes["error.type"], refusal.failed) == (
        "receive",
        "Refused",
        False,
    )


async def test_without_a_collector_contexts_are_passed_on_as_they_came(
    database_urls: DatabaseUrls,
) -> None:
    async with (
        await psycopg.AsyncConnection.connect(
            database_urls.service, autocommit=True, row_factory=dict_row
        ) as connection,
        httpx.AsyncClient(timeout=30) as client,
        started(database_urls.service) as process,
    ):
        await register(connection, job_type())
        await process.ready()
        for context in (SENDER, f"00-{'0' * 32}-00f067aa0ba902b7-01", "nonsense"):
            await client.post(
                f"{process.url('api')}/api/jobs",
                headers=AUTHORIZATION | {"traceparent": context},
                json={"type": "test/long", "payload": {}},
            )
        cursor = await connection.execute(
            "SELECT traceparent FROM hybridjobs.background_jobs ORDER BY id"
        )
        found = [row["traceparent"] for row in await cursor.fetchall()]
    assert found == [SENDER, None, None]
