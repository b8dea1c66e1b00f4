"""Quick jobs in real child processes: answered at once, and never lost when that fails."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybridjobs.model import Status
from tests.builders import job_type
from tests.conftest import service_shut_out
from tests.integration.ingress.conftest import SECRET, Running, quick_type
from tests.recorded import Delivery, signed_headers
from tests.waiting import eventually

Start = Callable[..., Any]


async def reaches(running: Running, job_id: str, status: Status) -> None:
    async def reached() -> bool:
        return (await running.job(job_id)).status is status

    await eventually(reached)


async def begun(running: Running) -> None:
    """Until a job of quick/waits is executed."""

    async def told() -> bool:
        async with running.database.connection() as connection:
            cursor = await connection.execute("SELECT FROM hybridjobs.job_heartbeats")
            return cursor.rowcount > 0

    await eventually(told)


async def gone(pid: int) -> None:
    def is_gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    await eventually(is_gone)


async def test_a_quick_job_is_answered_with_its_result(quick_ingress: Start) -> None:
    ingress: Running = await quick_ingress(quick_type("quick/echo"))
    answer = await ingress.submit("quick/echo", {"n": 12345678901234567890, "x": 1.0})
    assert answer.status_code == 200
    assert '"result":{"n":12345678901234567890,"x":1.0}' in answer.text
    job = await ingress.job(answer.json()["id"])
    assert (job.status, job.attempt) == (Status.COMPLETED, 1)
    [attempt] = job.attempts
    assert (attempt.runner, attempt.outcome) == ("inline", "succeeded")
    assert "echoing" in (attempt.log_tail or "")


async def test_a_webhook_of_quick_types_is_answered_with_their_results(
    quick_ingress: Start,
) -> None:
    event = "github/issues"
    ingress: Running = await quick_ingress(
        quick_type("quick/echo", events=[event]), quick_type("quick/refuses", events=[event])
    )
    body = b'{"action":"opened"}'
    headers = signed_headers(SECRET, Delivery("issues", body, 1))
    first, again = [
        await ingress.webhooks.post("/webhooks/github", content=body, headers=headers)
        for _ in range(2)
    ]
    assert (first.status_code, again.status_code) == (200, 202)
    echoed, refused = sorted(first.json()["jobs"], key=lambda job: str(job["type"]))
    assert (echoed["status"], echoed["result"]) == ("completed", {"action": "opened"})
    assert (refused["status"], refused["error"]) == ("failed", "never \ufffd possible")
    assert "replayed" not in first.json()
    # Delivered again, what has failed runs once more.
    assert again.json()["retried"]
    assert echoed in again.json()["jobs"]
    assert {job["id"]: job["status"] for job in again.json()["jobs"]} == {
        echoed["id"]: "completed",
        refused["id"]: "queued",
    }


async def test_beside_a_long_type_a_quick_one_runs_on_behind_the_answer(
    quick_ingress: Start,
) -> None:
    event = "github/issues"
    ingress: Running = await quick_ingress(
        quick_type("quick/echo", events=[event]), job_type("test/long", events=[event])
    )
    body = b'{"action":"opened"}'
    answer = await ingress.webhooks.post(
        "/webhooks/github",
        content=body,
        headers=signed_headers(SECRET, Delivery("issues", body, 1)),
    )
    assert answer.status_code == 202
    ids = {job["type"]: job["id"] for job in answer.json()["jobs"]}
    await reaches(ingress, ids["quick/echo"], Status.COMPLETED)
    assert (await ingress.job(ids["test/long"])).status is Status.QUEUED


@pytest.mark.parametrize("type_", ["quick/blocks", "quick/spins"])
async def test_over_budget_it_goes_on_as_a_pod_and_the_child_is_replaced(
    quick_ingress: Start, type_: str
) -> None:
    ingress: Running = await quick_ingress(
        quick_type(type_, budgetSeconds=3), quick_type("quick/echo")
    )
    answer = await ingress.submit(type_)
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    job = await ingress.job(answer.json()["id"])
    assert [(a.outcome, a.reason) for a in job.attempts] == [("over_budget", "OverBudget")]
    assert job.retry_count == 0
    assert (await ingress.submit("quick/echo")).status_code == 200


async def test_a_type_that_may_not_run_twice_fails_over_budget(quick_ingress: Start) -> None:
    ingress: Running = await quick_ingress(
        quick_type("quick/blocks", budgetSeconds=3, retry={"limit": 0})
    )
    answer = await ingress.submit("quick/blocks")
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")


@pytest.mark.parametrize(("limit", "outcome"), [(3, "over_budget"), (0, "disrupted")])
async def test_without_a_free_child_it_goes_on_as_a_pod(
    quick_ingress: Start, limit: int, outcome: str
) -> None:
    ingress: Running = await quick_ingress(
        quick_type("quick/waits", budgetSeconds=4),
        quick_type("quick/echo", budgetSeconds=0.5, retry={"limit": limit}),
    )
    blocking = asyncio.create_task(ingress.submit("quick/waits", {"seconds": 60}))
    await begun(ingress)
    answer = await ingress.submit("quick/echo")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    job = await ingress.job(answer.json()["id"])
    assert [(a.outcome, a.reason) for a in job.attempts] == [(outcome, "NoFreeChild")]
    await blocking


async def test_a_child_that_exits_loses_nothing(quick_ingress: Start) -> None:
    ingress: Running = await quick_ingress(quick_type("quick/exits"), quick_type("quick/echo"))
    answer = await ingress.submit("quick/exits")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    [attempt] = (await ingress.job(answer.json()["id"])).attempts
    assert (attempt.outcome, attempt.reason) == ("lost", "ChildDied")
    assert attempt.message == "the child process exited with code 3"
    assert (await ingress.submit("quick/echo")).status_code == 200


async def test_a_child_killed_in_the_middle_loses_nothing(quick_ingress: Start) -> None:
    ingress: Running = await quick_ingress(quick_type("quick/pid"), quick_type("quick/waits"))
    child = (await ingress.submit("quick/pid")).json()["result"]["pid"]
    waiting = asyncio.create_task(ingress.submit("quick/waits", {"seconds": 60}))
    await begun(ingress)
    os.kill(child, signal.SIGKILL)
    answer = await waiting
    assert answer.status_code == 202
    [attempt] = (await ingress.job(answer.json()["id"])).attempts
    assert attempt.message == "the child process killed by SIGKILL"
    assert (await ingress.submit("quick/pid")).json()["result"]["pid"] != child


@pytest.mark.parametrize("type_", ["quick/hoards", "quick/hoards-elsewhere"])
async def test_a_child_that_hoards_memory_is_replaced_and_its_job_goes_on(
    quick_ingress: Start, type_: str
) -> None:
    ingress: Running = await quick_ingress(quick_type(type_), quick_type("quick/echo"))
    answer = await ingress.submit(type_, {"bytes": 512 * 1024 * 1024})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    [attempt] = (await ingress.job(answer.json()["id"])).attempts
    assert (attempt.outcome, attempt.reason) == ("lost", "ChildDied")
    assert (await ingress.submit("quick/echo")).status_code == 200


async def test_a_fork_of_a_handler_speaks_for_nobody(quick_ingress: Start) -> None:
    ingress: Running = await quick_ingress(quick_type("quick/forks"), quick_type("quick/echo"))
    answer = await ingress.submit("quick/forks")
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    result = answer.json()["result"]
    assert result["pid"] == result["parent"]
    for number in range(5):
        answer = await ingress.submit("quick/echo", {"n": number})
        assert (answer.status_code, answer.json()["result"]) == (200, {"n": number})
    job = await ingress.job(answer.json()["id"])
    assert (job.progress or {})["message"] == "half"


async def test_a_child_whose_handler_leaves_processes_is_replaced_and_they_are_ended(
    quick_ingress: Start, tmp_path: Path
) -> None:
    ingress: Running = await quick_ingress(
        quick_type("quick/leaves", budgetSeconds=3),
        quick_type("quick/ends"),
        quick_type("quick/pid"),
    )
    first = (await ingress.submit("quick/ends")).json()["result"]["pid"]
    left = (await ingress.submit("quick/leaves")).json()["result"]
    assert left["pid"] == first
    # Nobody is handed the child that ends.
    answer = await ingress.submit("quick/pid")
    assert answer.status_code == 200
    assert answer.json()["result"]["pid"] != first
    await gone(left["left"])
    await gone(left["other"])
    answer = await ingress.submit("quick/leaves", {"hangs": str(tmp_path / "pid")})
    assert answer.status_code == 202
    await gone(int((tmp_path / "pid").read_text()))


async def test_what_outlives_its_run_says_nothing_of_the_next(quick_ingress: Start) -> None:
    ingress: Running = await quick_ingress(quick_type("quick/haunts"), quick_type("quick/pid"))
    assert (await ingress.submit("quick/haunts")).status_code == 200
    answer = await ingress.submit("quick/pid", {"seconds": 1.2})
    job = await ingress.job(answer.json()["id"])
    assert (job.status, job.progress) == (Status.COMPLETED, None)
    async with ingress.database.connection() as connection:
        cursor = await connection.execute("SELECT data FROM hybridjobs.job_checkpoints")
        assert await cursor.fetchall() == []


async def test_a_child_that_works_without_a_job_is_replaced(quick_ingress: Start) -> None:
    ingress: Running = await quick_ingress(
        quick_type("quick/chatters", budgetSeconds=4), quick_type("quick/pid")
    )
    endless = await ingress.submit("quick/chatters", {"never": True})
    assert (endless.status_code, endless.json()["status"]) == (202, "queued")
    assert (await ingress.submit("quick/chatters")).status_code == 200
    child = (await ingress.submit("quick/pid")).json()["result"]["pid"]
    await gone(child)
    assert (await ingress.submit("quick/pid")).json()["result"]["pid"] != child


async def test_a_crowd_costs_nobody_the_child(quick_ingress: Start) -> None:
    ingress: Running = await quick_ingress(quick_type("quick/pid", budgetSeconds=6))
    assert (await ingress.submit("quick/pid")).status_code == 200
    answers = await asyncio.gather(
        *(ingress.submit("quick/pid", {"seconds": 0.4}) for _ in range(20))
    )
    done = [answer.json()["result"]["pid"] for answer in answers if answer.status_code == 200]
    assert len(done) >= 2
    assert len(set(done)) == 1
    assert {answer.status_code for answer in answers} == {200, 202}
    jobs = [await ingress.job(answer.json()["id"]) for answer in answers]
    reasons = {job.attempts[0].reason for job in jobs}
    assert reasons == {"Completed", "NoFreeChild"}


@pytest.mark.parametrize(
    ("type_", "status", "state", "outcome"),
    [
        ("quick/raises", 202, "queued", "failed"),
        ("quick/refuses", 200, "failed", "permanent"),
        ("quick/later", 202, "queued", "retry_later"),
        ("quick/nul", 200, "failed", "permanent"),
        ("quick/unknown", 200, "failed", "permanent"),
    ],
)
async def test_failures(
    quick_ingress: Start, type_: str, status: int, state: str, outcome: str
) -> None:
    ingress: Running = await quick_ingress(quick_type(type_))
    answer = await ingress.submit(type_)
    assert (answer.status_code, answer.json()["status"]) == (status, state)
    [attempt] = (await ingress.job(answer.json()["id"])).attempts
    assert attempt.outcome == outcome


async def test_a_result_over_the_limit_is_a_permanent_failure(quick_ingress: Start) -> None:
    ingress: Running = await quick_ingress(quick_type("quick/large"), max_result_bytes=2048)
    assert (await ingress.submit("quick/large", {"size": 2000})).status_code == 200
    answer = await ingress.submit("quick/large", {"size": 4000})
    assert answer.json()["status"] == "failed"
    assert answer.json()["error"] == "the result is 4002 bytes, the limit 2048"


async def test_a_handler_submits_and_saves(quick_ingress: Start) -> None:
    ingress: Running = await quick_ingress(quick_type("quick/submits"), job_type())
    answer = await ingress.submit("quick/submits")
    result = answer.json()["result"]
    assert result["child"] == result["again"]
    child = await ingress.job(result["child"])
    assert str(child.parent_id) == answer.json()["id"]
    assert child.source == f"worker:{answer.json()['id']}"
    assert json.loads(child.payload) == {"from": "parent"}
    async with ingress.database.connection() as connection:
        cursor = await connection.execute("SELECT data FROM hybridjobs.job_checkpoints")
        assert [row["data"] for row in await cursor.fetchall()] == [{"at": 1}]


async def test_a_replay_waits_for_the_run_that_goes_on(quick_ingress: Start) -> None:
    ingress: Running = await quick_ingress(quick_type("quick/pid"))
    answers = await asyncio.gather(
        *(ingress.submit("quick/pid", {"seconds": 1}, key="once") for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert await ingress.count() == 1


async def test_a_client_that_hangs_up_loses_no_job(quick_ingress: Start) -> None:
    ingress: Running = await quick_ingress(quick_type("quick/pid"))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await ingress.submit("quick/pid", {"seconds": 1.5}, key="gone")
    answer = await ingress.submit("quick/pid", {"seconds": 1.5}, key="gone")
    assert answer.status_code == 200
    assert await ingress.count() == 1


async def test_a_stop_waits_for_the_jobs_in_flight(quick_ingress: Start) -> None:
    ingress: Running = await quick_ingress(quick_type("quick/waits"))
    answer = asyncio.create_task(ingress.submit("quick/waits", {"seconds": 1}))
    await begun(ingress)
    ingress.stop.set()
    result = (await answer).json()["result"]
    await ingress.task
    with pytest.raises(ProcessLookupError):
        os.kill(result["pid"], 0)


async def test_children_see_no_secret(
    quick_ingress: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYBRIDJOBS_API_TOKEN", "hidden")
    monkeypatch.setenv("HYBRIDJOBS_CHILD_ENV_GITHUB_TOKEN", "theirs")
    ingress: Running = await quick_ingress(
        quick_type("quick/pid"), handlers_database_url="postgresql://jobs@localhost/x"
    )
    names = (await ingress.submit("quick/pid")).json()["result"]["names"]
    assert {"GITHUB_TOKEN", "DATABASE_URL", "PATH"} <= set(names)
    assert not [name for name in names if name.startswith("HYBRIDJOBS_")]


async def test_a_new_quick_type_gets_its_children(quick_ingress: Start) -> None:
    ingress: Running = await quick_ingress(quick_type("quick/pid"))
    old = (await ingress.submit("quick/pid")).json()["result"]["pid"]
    await ingress.register(quick_type("quick/echo", budgetSeconds=8))
    assert (await ingress.submit("quick/echo")).status_code == 200
    assert (await ingress.submit("quick/pid")).json()["result"]["pid"] != old


async def test_a_paused_quick_type_waits(quick_ingress: Start) -> None:
    ingress: Running = await quick_ingress(quick_type("quick/echo"))
    async with ingress.database.connection() as connection:
        await connection.execute("UPDATE hybridjobs.job_types SET paused_at = now()")
    await ingress.api.get("/api/types")
    answer = await ingress.submit("quick/echo")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert (await ingress.job(answer.json()["id"])).attempts == ()


async def test_the_lease_of_a_dead_process_expires(quick_ingress: Start) -> None:
    ingress: Running = await quick_ingress(quick_type("quick/waits"))
    waiting = asyncio.create_task(ingress.submit("quick/waits", {"seconds": 5}, key="k"))
    await begun(ingress)
    async with ingress.database.connection() as connection:
        await connection.execute("UPDATE hybridjobs.job_attempts SET lease_until = now()")
    answer = await waiting
    # The run ended after others had closed its attempt: what they recorded stands.
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    [attempt] = (await ingress.job(answer.json()["id"])).attempts
    assert (attempt.outcome, attempt.reason) == ("lost", "LeaseExpired")


async def test_the_outcome_waits_for_a_database_that_comes_back(
    quick_ingress: Start, database_url: str
) -> None:
    ingress: Running = await quick_ingress(quick_type("quick/waits", budgetSeconds=4))
    waiting = asyncio.create_task(ingress.submit("quick/waits", {"seconds": 2}))
    await begun(ingress)
    async with service_shut_out(database_url):
        answer = await waiting
    assert (answer.status_code, answer.json()["status"]) == (202, "processing")
    await reaches(ingress, answer.json()["id"], Status.COMPLETED)


async def test_a_limited_quick_type_runs_here_while_its_limit_has_room(
    quick_ingress: Start,
) -> None:
    limited = quick_type("quick/waits", concurrency={"limit": 1, "key": "repository"})
    ingress: Running = await quick_ingress(limited)
    first = asyncio.create_task(ingress.submit("quick/waits", {"repository": "a", "seconds": 3}))
    await begun(ingress)
    same, other = await asyncio.gather(
        ingress.submit("quick/waits", {"repository": "a"}),
        ingress.submit("quick/waits", {"repository": "b"}),
    )
    assert (same.status_code, other.status_code, (await first).status_code) == (202, 200, 200)
    waiting = await ingress.job(same.json()["id"])
    assert (waiting.status, waiting.attempt) == (Status.QUEUED, 0)
    ran = await ingress.job(other.json()["id"])
    assert [(each.runner, each.outcome) for each in ran.attempts] == [("inline", "succeeded")]
    again = await ingress.submit("quick/waits", {"repository": "a"})
    assert again.status_code == 200


async def test_a_throttled_quick_type_waits_in_line_past_its_rate(quick_ingress: Start) -> None:
    throttled = quick_type("quick/echo", throttle={"limit": 2, "periodSeconds": 3600})
    ingress: Running = await quick_ingress(throttled)
    answers = await asyncio.gather(*(ingress.submit("quick/echo") for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 202, 202, 202, 202]
