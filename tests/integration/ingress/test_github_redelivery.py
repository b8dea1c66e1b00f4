"""GitHub delivers again: a job that failed runs once more, everything else is a replay."""

import asyncio
from typing import Any

import httpx
import pytest

from hybridjobs.model import AttemptEnd, Outcome, Status
from hybridjobs.store.claim import claim
from hybridjobs.store.outcome import record_outcome, request_cancel
from tests.builders import job_type
from tests.integration.ingress.conftest import SECRET, Running, quick_type
from tests.recorded import deliveries, signed_headers

OPENED = next(d for d in deliveries() if d.event == "pull_request" and d.action == "opened")
PING = next(d for d in deliveries() if d.event == "ping")
EVENTS: dict[str, Any] = {"events": ["github/pull_request.opened"]}
DONE = AttemptEnd(Outcome.SUCCEEDED, "Completed", result='{"n":1}')
BROKEN = AttemptEnd(Outcome.PERMANENT, "PermanentError", "never possible")
# What GitHub says of the hook, for those of an App, a repository, an organisation and a business.
TARGETS = ("integration", "repository", "organization", "business")


async def deliver(ingress: Running, **headers: str) -> httpx.Response:
    return await ingress.webhooks.post(
        "/webhooks/github",
        content=OPENED.payload,
        headers={**signed_headers(SECRET, OPENED), **headers},
    )


async def end(ingress: Running, ends: dict[str, AttemptEnd]) -> None:
    """Claim what is queued, and end each type's job as said."""
    async with ingress.database.transaction() as connection:
        claims = await claim(connection, window=10)
    for each in claims:
        if each.type in ends:
            async with ingress.database.transaction() as connection:
                await record_outcome(connection, each.job_id, each.attempt, ends[each.type])


async def test_a_failed_job_runs_once_more(ingress: Running) -> None:
    await ingress.register(job_type(**EVENTS))
    [first] = (await deliver(ingress)).json()["jobs"]
    await end(ingress, {"test/long": BROKEN})
    assert (await ingress.job(first["id"])).status is Status.FAILED
    again = await deliver(ingress)
    assert again.status_code == 202
    assert again.json() == {"jobs": [first], "retried": True}
    assert (await ingress.job(first["id"])).status is Status.QUEUED
    await end(ingress, {"test/long": DONE})
    job = await ingress.job(first["id"])
    assert (job.status, [each.attempt for each in job.attempts]) == (Status.COMPLETED, [1, 2])
    last = (await deliver(ingress)).json()
    assert (last["replayed"], last["jobs"][0]["status"]) == (True, "completed")
    assert await ingress.count() == 1


async def test_redeliveries_at_once_retry_it_once(ingress: Running) -> None:
    await ingress.register(job_type(**EVENTS))
    [first] = (await deliver(ingress)).json()["jobs"]
    await end(ingress, {"test/long": BROKEN})
    answers = await asyncio.gather(*(deliver(ingress) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {202}
    assert all(answer.json()["jobs"] == [first] for answer in answers)
    assert sum("retried" in answer.json() for answer in answers) == 1
    job = await ingress.job(first["id"])
    assert (job.status, job.retry_count) == (Status.QUEUED, 1)


async def test_of_several_types_only_the_failed_one_runs_again(ingress: Running) -> None:
    names = ("test/broken", "test/done", "test/open", "test/unwanted")
    await ingress.register(*(job_type(name, **EVENTS) for name in names))
    jobs = {job["type"]: job["id"] for job in (await deliver(ingress)).json()["jobs"]}
    async with ingress.database.connection() as connection:
        job = await ingress.job(jobs["test/unwanted"])
        assert await request_cancel(connection, job.id) is Status.CANCELLED
    await end(ingress, {"test/broken": BROKEN, "test/done": DONE})
    answer = await deliver(ingress)
    assert (answer.status_code, answer.json()["retried"]) == (202, True)
    assert {job["type"]: (job["id"], job["status"]) for job in answer.json()["jobs"]} == {
        "test/broken": (jobs["test/broken"], "queued"),
        "test/done": (jobs["test/done"], "completed"),
        "test/open": (jobs["test/open"], "queued"),
        "test/unwanted": (jobs["test/unwanted"], "cancelled"),
    }
    assert await ingress.count() == 4


async def test_a_cancelled_job_stays_cancelled(ingress: Running) -> None:
    await ingress.register(job_type(**EVENTS))
    [first] = (await deliver(ingress)).json()["jobs"]
    job = await ingress.job(first["id"])
    async with ingress.database.connection() as connection:
        await request_cancel(connection, job.id)
    answer = await deliver(ingress)
    assert answer.json() == {"jobs": [{**first, "status": "cancelled"}], "replayed": True}


async def test_a_quick_job_that_failed_goes_on_in_line(quick_ingress: Any) -> None:
    ingress: Running = await quick_ingress(
        quick_type("quick/refuses", **EVENTS), quick_type("quick/echo", **EVENTS)
    )
    first = await deliver(ingress)
    assert first.status_code == 200
    ids = {job["type"]: job["id"] for job in first.json()["jobs"]}
    again = await deliver(ingress)
    assert (again.status_code, again.json()["retried"]) == (202, True)
    assert {job["type"]: (job["id"], job["status"]) for job in again.json()["jobs"]} == {
        "quick/refuses": (ids["quick/refuses"], "queued"),
        "quick/echo": (ids["quick/echo"], "completed"),
    }


async def test_a_type_that_is_new_since_runs_beside_the_retried_one(quick_ingress: Any) -> None:
    ingress: Running = await quick_ingress(quick_type("quick/refuses", **EVENTS))
    await deliver(ingress)
    await ingress.register(quick_type("quick/echo", **EVENTS))
    again = await deliver(ingress)
    assert {job["type"]: job["status"] for job in again.json()["jobs"]} == {
        "quick/refuses": "queued",
        "quick/echo": "completed",
    }


@pytest.mark.parametrize("target", TARGETS)
async def test_deliveries_of_apps_and_of_hooks_are_taken_alike(
    ingress: Running, target: str
) -> None:
    await ingress.register(job_type(**EVENTS))
    about = {
        "user-agent": "GitHub-Hookshot/044aadd",
        "accept": "*/*",
        "x-github-hook-id": "292430182",
        "x-github-hook-installation-target-id": "79929171",
        "x-github-hook-installation-target-type": target,
        "x-hub-signature": "sha1=" + "0" * 40,
    }
    assert (await deliver(ingress, **about)).status_code == 202
    ping = await ingress.webhooks.post(
        "/webhooks/github",
        content=PING.payload,
        headers={**signed_headers(SECRET, PING), **about},
    )
    assert (ping.status_code, ping.json()) == (200, {"pong": True})
    assert await ingress.count() == 1
