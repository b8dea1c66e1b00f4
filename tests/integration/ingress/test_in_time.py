"""GitHub has its answer within 10 s, whatever is slow here, and no delivery is lost by that."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx

from hybridjobs.model import Status
from tests.builders import job_type
from tests.integration.ingress.conftest import SECRET, Running, quick_type
from tests.integration.ingress.test_github_redelivery import BROKEN, EVENTS, OPENED, end
from tests.recorded import signed_headers

GITHUB_WAITS_SECONDS = 10


async def answered(ingress: Running, delivery_id: str) -> httpx.Response:
    """The answer, which must come in time."""
    began = time.monotonic()
    answer = await ingress.webhooks.post(
        "/webhooks/github",
        content=OPENED.payload,
        headers=signed_headers(SECRET, OPENED, delivery_id=delivery_id),
    )
    assert time.monotonic() - began < GITHUB_WAITS_SECONDS
    return answer


async def test_more_quick_jobs_than_there_are_children_go_on_as_pods(
    quick_ingress: Callable[..., Any],
) -> None:
    ingress: Running = await quick_ingress(quick_type("quick/blocks", budgetSeconds=8, **EVENTS))
    answers = await asyncio.gather(*(answered(ingress, f"{number}") for number in range(30)))
    assert {answer.status_code for answer in answers} == {202}
    assert {answer.json()["jobs"][0]["status"] for answer in answers} == {"queued"}
    assert await ingress.count() == 30


async def test_a_table_that_is_locked(ingress: Running) -> None:
    await ingress.register(job_type(**EVENTS))
    async with ingress.database.transaction() as connection:
        await connection.execute("LOCK TABLE hybridjobs.background_jobs")
        answers = await asyncio.gather(*(answered(ingress, f"{number}") for number in range(90)))
        assert {answer.status_code for answer in answers} == {503}
        assert all("retry-after" in answer.headers for answer in answers)
    again = await asyncio.gather(*(answered(ingress, f"{number}") for number in range(90)))
    assert {answer.status_code for answer in again} == {202}
    assert await ingress.count() == 90


async def test_a_failed_job_whose_row_is_locked(ingress: Running) -> None:
    await ingress.register(job_type(**EVENTS))
    [first] = (await answered(ingress, "a")).json()["jobs"]
    await end(ingress, {"test/long": BROKEN})
    async with ingress.database.transaction() as connection:
        await connection.execute("SELECT FROM hybridjobs.background_jobs FOR UPDATE")
        assert (await answered(ingress, "a")).status_code == 503
    assert (await answered(ingress, "a")).status_code == 202
    assert (await ingress.job(first["id"])).status is Status.QUEUED
