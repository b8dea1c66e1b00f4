"""When a delivery is written: with every end of a job that has asked for it, once."""

from typing import Any
from uuid import UUID

import pytest

from hybridjobs.model import Callback, Outcome
from tests.builders import job_type, new_job
from tests.integration.callbacks.conftest import Calls

URL = "https://receiver.example/done"


async def _events(calls: Calls, job_id: UUID) -> list[str]:
    rows = await calls.rows(
        "SELECT event FROM callback_deliveries WHERE job_id = %s ORDER BY id", job_id
    )
    return [row["event"] for row in rows]


async def _job(calls: Calls, **fields: Any) -> UUID:
    [job_id] = await calls.enqueue(new_job(callbacks=(Callback(url=URL),), **fields))
    return job_id


@pytest.mark.parametrize(
    ("outcome", "event"),
    [
        (Outcome.SUCCEEDED, "job.completed"),
        (Outcome.PERMANENT, "job.failed"),
        (Outcome.CANCELLED, "job.cancelled"),
    ],
)
async def test_an_outcome_tells(calls: Calls, outcome: Outcome, event: str) -> None:
    job_id = await _job(calls)
    await calls.claim()
    await calls.end(job_id, outcome)
    assert await _events(calls, job_id) == [event]


async def test_a_retry_tells_nothing_and_the_last_failure_does(calls: Calls) -> None:
    job_id = await _job(calls, max_retries=1)
    await calls.claim()
    assert await calls.end(job_id, Outcome.FAILED) == "queued"
    assert await _events(calls, job_id) == []
    await calls.execute("UPDATE background_jobs SET run_at = now(), order_key = now()")
    await calls.claim()
    assert await calls.end(job_id, Outcome.FAILED) == "failed"
    assert await calls.end(job_id, Outcome.FAILED) == "failed"
    assert await _events(calls, job_id) == ["job.failed"]


async def test_a_cancelled_queued_job_and_a_hand_with_psql_tell(calls: Calls) -> None:
    cancelled, by_hand = await _job(calls), await _job(calls)
    await calls.execute("SELECT cancel_job(%s)", cancelled)
    await calls.execute("UPDATE background_jobs SET status = 'failed' WHERE id = %s", by_hand)
    assert await _events(calls, cancelled) == ["job.cancelled"]
    assert await _events(calls, by_hand) == ["job.failed"]


async def test_a_job_cancelled_with_what_it_waited_for_tells(calls: Calls) -> None:
    [first] = await calls.enqueue(new_job())
    job_id = await _job(calls, depends_on=(first,))
    await calls.execute("SELECT cancel_job(%s)", first)
    await calls.link()
    assert await calls.status(job_id) == "cancelled"
    assert await _events(calls, job_id) == ["job.cancelled"]
    assert await _events(calls, first) == []


async def test_a_redriven_job_tells_of_its_second_end_too(calls: Calls) -> None:
    job_id = await _job(calls)
    await calls.claim()
    await calls.end(job_id, Outcome.PERMANENT)
    await calls.execute("SELECT retry_failed_job(%s)", job_id)
    await calls.claim()
    await calls.end(job_id)
    assert await _events(calls, job_id) == ["job.failed", "job.completed"]


async def test_it_is_written_with_the_end_or_not_at_all(calls: Calls) -> None:
    job_id = await _job(calls)
    async with calls.database.connection() as connection:
        async with connection.transaction(force_rollback=True):
            await connection.execute(
                "UPDATE hybridjobs.background_jobs SET status = 'cancelled' WHERE id = %s",
                [job_id],
            )
        assert await _events(calls, job_id) == []


async def test_only_the_ends_asked_for_are_told_to_each(calls: Calls) -> None:
    callbacks = (
        Callback(url=URL, events=("failed",)),
        Callback(url="https://other.example/", events=("completed", "failed"), secret="other"),
    )
    completed, failed = await calls.enqueue(
        new_job(callbacks=callbacks), new_job(callbacks=callbacks)
    )
    await calls.claim()
    await calls.end(completed)
    await calls.end(failed, Outcome.PERMANENT)
    assert await _events(calls, completed) == ["job.completed"]
    row = await calls.delivery(completed)
    assert (row["url"], row["host"], row["secret"]) == (
        "https://other.example/",
        "other.example",
        "other",
    )
    assert await _events(calls, failed) == ["job.failed"] * 2


@pytest.mark.parametrize(
    "written", ["{}", "[]", "null", '"x"', "[1]", '[{"url": 1}]', '{"on": ["failed"]}']
)
async def test_whatever_stands_in_the_column_the_job_ends(calls: Calls, written: str) -> None:
    job_id = await _job(calls)
    await calls.execute("UPDATE background_jobs SET callback = %s", written)
    await calls.complete(job_id)
    assert await calls.status(job_id) == "completed"
    assert await _events(calls, job_id) == []


async def test_the_body_has_what_a_receiver_needs(calls: Calls) -> None:
    job_id = await _job(calls, key="k")
    await calls.claim()
    await calls.complete(job_id, '{"n": 12345678901234567890.5}')
    row = await calls.delivery(job_id)
    assert '{"n": 12345678901234567890.5}' in row["body"]
    [data] = await calls.rows("SELECT body::json->'data' AS data FROM callback_deliveries")
    job = await calls.job(job_id)
    assert data["data"] | {"result": None, "createdAt": None, "startedAt": None} == {
        "id": str(job_id),
        "type": "test/long",
        "status": "completed",
        "result": None,
        "resultOmitted": False,
        "error": None,
        "reason": "SetByHand",
        "errorCategory": None,
        "attempts": 1,
        "durationMs": job["duration_ms"],
        "key": "k",
        "source": "api",
        "batchId": None,
        "parentId": None,
        "schedule": None,
        "createdAt": None,
        "startedAt": None,
        "url": f"/api/jobs/{job_id}",
    }


async def test_a_large_result_is_left_out_and_a_long_error_cut(calls: Calls) -> None:
    job_id = await _job(calls)
    await calls.execute(
        "UPDATE background_jobs SET status = 'failed', error = repeat('e', 100000), "
        "result = to_jsonb(repeat('r', 70000)) WHERE id = %s",
        job_id,
    )
    [row] = await calls.rows("SELECT body, body::json->'data' AS data FROM callback_deliveries")
    assert (row["data"]["result"], row["data"]["resultOmitted"]) == (None, True)
    assert len(row["body"]) < 6000


async def test_a_long_host_does_not_keep_a_job_from_ending(calls: Calls) -> None:
    job_id = await calls.ended(f"https://{'x' * 20_000}/")
    assert len((await calls.delivery(job_id))["host"]) == 255


async def test_submit_job_takes_a_callback_and_adds_the_types(calls: Calls) -> None:
    await calls.register(
        job_type("test/told", callback={"url": "https://type.example/", "events": ["failed"]})
    )
    statement = "SELECT submit_job('test/told', callback => %s::jsonb)"
    job_id = await calls.value(statement, f'{{"url": "{URL}"}}')
    assert (await calls.job(job_id))["callback"] == [
        {"url": "https://type.example/", "on": ["failed"], "secret": "default"},
        {"url": URL, "on": ["completed", "failed", "cancelled"], "secret": "default"},
    ]
    alone = await calls.value("SELECT submit_job('test/told')")
    assert len((await calls.job(alone))["callback"]) == 1
    assert (await calls.job(await calls.value("SELECT submit_job('test/long')")))[
        "callback"
    ] is None


@pytest.mark.parametrize(
    "callback",
    [
        "[]",
        '"https://x.example"',
        "{}",
        '{"url": 1}',
        '{"url": "ftp://x"}',
        '{"url": "https://a b"}',
        f'{{"url": "https://{"x" * 2048}"}}',
        '{"url": "https://x", "secret": "another-s"}',
        '{"url": "https://x", "on": []}',
        '{"url": "https://x", "on": ["started"]}',
        '{"url": "https://x", "on": "failed"}',
    ],
)
async def test_submit_job_refuses_what_is_no_callback(calls: Calls, callback: str) -> None:
    with pytest.raises(Exception, match="callback must be"):
        await calls.value("SELECT submit_job('test/long', callback => %s::jsonb)", callback)
