"""Runs of Inngest's functions from their event to their end, and the jobs behind them."""

import asyncio
import json
from functools import partial
from typing import Any

import pytest

from hybridjobs.model import AttemptEnd, Outcome, Status
from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.ingress.conftest import quick_type
from tests.integration.ingress.inngest.conftest import OLD_KEY, RESULT, Start
from tests.integration.ingress.inngest.server import Run
from tests.integration.ingress.outcomes import FAILED, end_all
from tests.waiting import eventually

LONG = job_type("test/long", events=["shop/order.paid"])


async def test_a_long_job_s_outcome_is_its_run_s(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    [run] = scene.server.send("shop/order.paid", {"order": 7, "x": 1.5, "s": "ä"}, "e-1")
    job = await scene.ingress.job(await scene.job_id(run))
    assert (job.source, job.key, job.submitted_by) == ("inngest", run.id, "inngest")
    assert json.loads(job.payload) == {"order": 7, "x": 1.5, "s": "ä"}
    # Not before the server knows that it was submitted: its steps are in the order of their ends.
    await eventually(lambda: run.names == ["submit"])
    assert run.status == "running"
    await end_all(scene.ingress, RESULT)
    await run.ended()
    assert (run.status, run.output) == ("completed", {"rows": 7})
    assert run.names == ["submit", "finished"]
    [event] = [each for each in scene.server.events if each["name"] == "hybridjobs/job.finished"]
    assert event["data"] | {"duration_ms": 0} == {
        "run_id": run.id,
        "job_id": str(job.id),
        "type": "test/long",
        "status": "completed",
        "result": {"rows": 7},
        "error": None,
        "reason": "Completed",
        "attempts": 1,
        "duration_ms": 0,
    }


async def test_the_row_holds_the_event_and_the_run_and_the_trace(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    [run] = scene.server.send("shop/order.paid", {}, "e-2")
    job_id = await scene.job_id(run)
    async with scene.ingress.database.connection() as connection:
        cursor = await connection.execute(
            "SELECT inngest_event_id, inngest_run_id, traceparent"
            " FROM hybridjobs.background_jobs WHERE id = %s",
            [job_id],
        )
        row = await cursor.fetchone()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert row == {"inngest_event_id": "e-2", "inngest_run_id": run.id, "traceparent": trace}


async def test_of_a_hundred_jobs_that_end_at_once_every_run_completes(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    async with scene.ending():
        runs = [scene.server.send("shop/order.paid", {"n": n})[0] for n in range(100)]
        await asyncio.gather(*(run.ended() for run in runs))
    assert [run.status for run in runs] == ["completed"] * 100
    assert await scene.ingress.count() == 100


async def test_what_is_asked_between_two_steps_changes_nothing(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    scene.server.rediscover = True
    async with scene.ending():
        runs = [scene.server.send("shop/order.paid", {"n": n})[0] for n in range(20)]
        await asyncio.gather(*(run.ended() for run in runs))
    assert [run.status for run in runs] == ["completed"] * 20
    assert {tuple(sorted(run.names)) for run in runs} == {("finished", "submit")}
    assert await scene.ingress.count() == 20


async def test_a_call_too_large_for_its_events_and_steps_has_them_fetched(
    inngest: Start, installed_handlers: None
) -> None:
    quick = quick_type("quick/echo", events=["shop/ping"])
    scene = await inngest(
        LONG, quick, keys=(OLD_KEY,), inngest_signing_key_fallback=OLD_KEY, inline_children=1
    )
    await scene.registered("test/long", "quick/echo")
    scene.server.use_api, scene.server.refuse_fetches = True, 1
    async with scene.ending():
        runs = [scene.server.send("shop/order.paid", {"n": n})[0] for n in range(5)]
        runs += scene.server.send("shop/ping", {"n": 5})
        await asyncio.gather(*(run.ended() for run in runs))
    assert [run.status for run in runs] == ["completed"] * 6
    assert [run.output for run in runs] == [{"rows": 7}] * 5 + [{"n": 5}]
    assert scene.server.refuse_fetches == 0
    assert set(scene.server.fetched) == {"actions", "batch"}
    payloads = [(await scene.ingress.job(await scene.job_id(run))).payload for run in runs]
    assert [json.loads(each) for each in payloads] == [{"n": n} for n in range(6)]


async def test_the_server_of_these_tests_keeps_no_event_for_a_later_wait(inngest: Start) -> None:
    scene = await inngest(LONG)
    scene.server.send("hybridjobs/job.finished", {"run_id": "01A"})
    assert not scene.server.wait_for("hybridjobs/job.finished", "01A").found.done()


async def test_a_failed_job_fails_its_run_at_once(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    async with scene.ending(FAILED):
        [run] = scene.server.send("shop/order.paid", {})
        await run.ended()
    assert run.status == "failed"
    assert run.output["name"] == "NonRetriableError"
    assert "PermanentError: no such customer" in run.output["message"]
    assert run.calls == 3  # what there is to do, the submission, the end: none was repeated


async def test_a_cancelled_job_fails_its_run(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    [run] = scene.server.send("shop/order.paid", {})
    job_id = await scene.job_id(run)
    await scene.ingress.api.post(f"/api/jobs/{job_id}/cancel")
    await run.ended()
    assert (run.status, "cancelled" in run.output["message"].lower()) == ("failed", True)


async def test_cancelling_a_run_cancels_its_job(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    [run] = scene.server.send("shop/order.paid", {})
    job_id = await scene.job_id(run)
    [cancelling] = scene.server.cancel(run)
    await cancelling.ended()
    assert (cancelling.status, cancelling.output) == ("completed", {job_id: "cancelled"})
    job = await scene.ingress.job(job_id)
    assert (job.status, job.outcome_reason) == (Status.CANCELLED, "InngestRunCancelled")


async def test_a_cancelled_run_of_ours_without_a_job_is_looked_at_twice(inngest: Start) -> None:
    scene = await inngest(LONG)
    functions = await scene.registered("test/long")
    data = {"run_id": "01NONE", "function_id": functions["test/long"]["id"]}
    [ours] = scene.server.send("inngest/function.cancelled", data)
    [other] = scene.server.send(
        "inngest/function.cancelled", {"run_id": "01NONE", "function_id": "shop-mail"}
    )
    await ours.ended()
    await other.ended()
    assert (ours.names, ours.output) == (["cancel", "settle", "cancel"], {})
    assert (other.names, other.output) == (["cancel"], {})


async def test_calls_that_are_delivered_twice_make_one_job(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    scene.server.redeliver = True
    async with scene.ending():
        [run] = scene.server.send("shop/order.paid", {})
        await run.ended()
    assert (run.status, await scene.ingress.count()) == ("completed", 1)


async def test_concurrent_deliveries_of_a_submission_make_one_job(inngest: Start) -> None:
    scene = await inngest(LONG)
    functions = await scene.registered("test/long")
    run = Run("01CONCURRENT", functions["test/long"], {"name": "x", "data": {}, "id": "e"})
    first = await scene.server.call(run, "step", attempt=0, parallel=False)
    [step] = [op["id"] for op in first.json() if op["op"] == "StepPlanned"]
    answers = await asyncio.gather(
        *(scene.server.call(run, step, attempt=0, parallel=True) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} == {206}
    assert len({answer.json()[0]["data"]["job_id"] for answer in answers}) == 1
    assert await scene.ingress.count() == 1


async def test_a_run_once_more_of_the_same_event_is_a_job_of_its_own(inngest: Start) -> None:
    scene = await inngest(LONG)
    functions = await scene.registered("test/long")
    async with scene.ending(FAILED):
        [run] = scene.server.send("shop/order.paid", {}, "same")
        await run.ended()
    async with scene.ending():
        again = scene.server.start(functions["test/long"], run.event)
        await again.ended()
    assert (run.status, again.status) == ("failed", "completed")
    assert await scene.ingress.count() == 2


async def test_an_event_for_several_types_is_a_run_of_each(inngest: Start) -> None:
    scene = await inngest(LONG, job_type("test/other", events=["shop/order.paid"]))
    await scene.registered("test/long", "test/other")
    async with scene.ending():
        runs = scene.server.send("shop/order.paid", {})
        await asyncio.gather(*(run.ended() for run in runs))
    assert {run.function["name"] for run in runs} == {"test/long", "test/other"}
    assert {run.status for run in runs} == {"completed"}


async def test_data_that_the_schema_refuses_fails_the_run_and_writes_nothing(
    inngest: Start,
) -> None:
    schema = {"type": "object", "required": ["order"]}
    scene = await inngest(job_type("test/strict", events=["shop/x"], payloadSchema=schema))
    await scene.registered("test/strict")
    [run] = scene.server.send("shop/x", {})
    await run.ended()
    assert (run.status, run.calls) == ("failed", 2)
    assert "/payload" in run.output["message"]
    assert await scene.ingress.count() == 0


async def test_a_wait_that_times_out_looks_at_the_job_and_goes_on(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    [run] = scene.server.send("shop/order.paid", {})
    await eventually(lambda: "submit" in run.names)

    def announced(times: int) -> bool:
        return run.names.count("announce") == times

    for times in range(1, 4):
        await eventually(scene.server.expire_waits)
        await eventually(partial(announced, times))
    assert run.status == "running"
    async with scene.ending():
        await run.ended()
    assert (run.status, run.output) == ("completed", json.loads(RESULT.result or ""))
    assert run.names == ["submit", *["finished", "look", "announce"] * 3, "finished"]


async def test_without_an_event_key_a_run_ends_when_its_wait_times_out(inngest: Start) -> None:
    scene = await inngest(LONG, inngest_event_key=None)
    await scene.registered("test/long")
    async with scene.ending():
        [run] = scene.server.send("shop/order.paid", {})
        job_id = await scene.job_id(run)
        await scene.reaches(job_id, Status.COMPLETED)
        await eventually(scene.server.expire_waits)
        await run.ended()
    assert run.status == "completed"
    assert sorted(run.names) == ["finished", "look", "submit"]


async def test_an_end_is_sent_until_it_is_taken_and_never_with_the_same_id(
    inngest: Start,
) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    scene.server.refuse_events = 2
    async with scene.ending():
        [run] = scene.server.send("shop/order.paid", {})
        await run.ended()
    assert (run.status, scene.server.refuse_events) == ("completed", 0)
    assert len(set(scene.server.event_ids)) == 3
    await scene.settled()


async def test_a_result_too_large_for_an_event_is_fetched_by_a_step(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    large = AttemptEnd(Outcome.SUCCEEDED, "Completed", result=json.dumps("x" * 300_000))
    [run] = scene.server.send("shop/order.paid", {})
    await eventually(lambda: run.names == ["submit"])
    await end_all(scene.ingress, large)
    await run.ended()
    assert (run.status, run.output) == ("completed", "x" * 300_000)
    assert run.names == ["submit", "finished", "result"]
    event = scene.server.events[-1]
    assert (event["data"]["result"], event["data"]["result_omitted"]) == (None, True)


async def test_a_quick_type_s_result_is_the_run_s(inngest: Start, installed_handlers: None) -> None:
    scene = await inngest(quick_type("quick/echo", events=["shop/ping"]), inline_children=1)
    await scene.registered("quick/echo")
    [run] = scene.server.send("shop/ping", {"n": 3})
    await run.ended()
    assert (run.status, run.output) == ("completed", {"n": 3})
    assert run.names == ["run"]
    job = await scene.ingress.job(await scene.job_id(run))
    assert (job.status, job.attempts[0].runner) == (Status.COMPLETED, "inline")


async def test_a_quick_job_that_fails_for_good_fails_the_run(
    inngest: Start, installed_handlers: None
) -> None:
    scene = await inngest(quick_type("quick/refuses", events=["shop/ping"]), inline_children=1)
    await scene.registered("quick/refuses")
    [run] = scene.server.send("shop/ping", {})
    await run.ended()
    assert (run.status, run.calls) == ("failed", 2)
    assert "never" in run.output["message"]


async def test_a_quick_job_over_its_budget_goes_on_and_its_run_waits(
    inngest: Start, installed_handlers: None
) -> None:
    slow = quick_type("quick/blocks", events=["shop/ping"], budgetSeconds=1)
    scene = await inngest(slow, inline_children=1)
    await scene.registered("quick/blocks")
    [run] = scene.server.send("shop/ping", {})
    await eventually(lambda: "announce" in run.names)
    async with scene.ending():
        await run.ended()
    assert (run.status, run.names) == ("completed", ["run", "announce", "finished"])


async def test_a_job_that_ended_before_its_run_waits_is_announced_again(
    inngest: Start, database_urls: DatabaseUrls
) -> None:
    quick = quick_type("quick/echo", events=["shop/ping"])  # without children it waits in line
    scene = await inngest(quick)
    functions = await scene.registered("quick/echo")
    run = Run("01ANNOUNCED", functions["quick/echo"], {"name": "shop/ping", "data": {}, "id": "e"})
    scene.server.runs.append(run)
    first = await scene.server.call(run, "step", attempt=0, parallel=False)
    [op] = first.json()
    scene.server.memoize(run, op)
    await end_all(scene.ingress, RESULT)
    await eventually(lambda: scene.server.events)  # and nobody waited for it
    run.task = asyncio.create_task(scene.server.execute(run))
    await run.ended()
    assert run.status == "completed"


async def test_data_goes_through_the_type_s_mapping(inngest: Start) -> None:
    spec: dict[str, Any] = {
        "mapping": {"order": "data.id"},
        "payloadSchema": {"required": ["order"]},
    }
    scene = await inngest(job_type("test/mapped", events=["shop/order.paid"], **spec))
    await scene.registered("test/mapped")
    [run] = scene.server.send("shop/order.paid", {"data": {"id": 7, "more": True}})
    job = await scene.ingress.job(await scene.job_id(run))
    assert json.loads(job.payload) == {"order": 7}


@pytest.mark.parametrize("payload", [{"n": None}, {"list": [1, [2, {"a": True}]]}])
async def test_data_reaches_the_job_as_it_is(inngest: Start, payload: dict[str, object]) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    [run] = scene.server.send("shop/order.paid", payload)
    job = await scene.ingress.job(await scene.job_id(run))
    assert json.loads(job.payload) == payload
