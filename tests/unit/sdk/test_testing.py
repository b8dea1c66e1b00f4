import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import BaseModel

from hybridjobs.sdk import Context, PermanentError, handler
from hybridjobs.sdk.testing import HandlerRun, Progress, run_handler


class Order(BaseModel):
    pages: int


@dataclass
class Report:
    at: datetime
    pages: list[int]


@handler("probe/report")
async def report(payload: Order, context: Context) -> Report:
    first = context.checkpoint["page"] + 1 if context.checkpoint else 1
    for page in range(first, payload.pages + 1):
        await context.save_checkpoint({"page": page})
        await context.progress(page, payload.pages, f"page {page}")
        await context.submit("probe/page", {"page": page}, key=f"page-{page}")
    return Report(datetime(2026, 1, 2, tzinfo=UTC), list(range(first, payload.pages + 1)))


async def test_a_run_tells_what_the_handler_did() -> None:
    run = await run_handler(report, {"pages": 2})
    assert run.result == {"at": "2026-01-02T00:00:00Z", "pages": [1, 2]}
    assert run.progress == [Progress(1, 2, "page 1"), Progress(2, 2, "page 2")]
    assert run.checkpoints == [{"page": 1}, {"page": 2}]
    assert [(job.type, job.payload, job.key) for job in run.submitted] == [
        ("probe/page", {"page": 1}, "page-1"),
        ("probe/page", {"page": 2}, "page-2"),
    ]


async def test_a_run_goes_on_from_a_checkpoint() -> None:
    run = await run_handler(report, Order(pages=3), checkpoint={"page": 2}, attempt=2)
    assert run.result["pages"] == [3]


async def test_an_invalid_payload_is_raised() -> None:
    with pytest.raises(PermanentError, match="/pages"):
        await run_handler(report, {"pages": "many"})


async def test_what_was_done_before_an_error_can_be_seen() -> None:
    @handler("probe/failing")
    async def failing(payload: object, context: Context) -> None:
        await context.progress(1)
        raise PermanentError("no")

    run = HandlerRun()
    with pytest.raises(PermanentError):
        await run_handler(failing, None, run=run)
    assert run.progress == [Progress(1, None, None)]


async def test_the_same_key_submits_the_same_job() -> None:
    @handler("probe/twice")
    async def twice(payload: object, context: Context) -> list[UUID]:
        return [
            await context.submit("probe/child", {}, key="a"),
            await context.submit("probe/child", {}, key="a"),
            await context.submit("probe/child", {}),
            await context.submit("probe/child", {}),
        ]

    run = await run_handler(twice, {})
    first, second, third, fourth = run.result
    assert first == second
    assert len({first, third, fourth}) == 3
    assert len(run.submitted) == 3


async def test_the_context_tells_of_the_job() -> None:
    @handler("probe/facts")
    async def facts(payload: object, context: Context) -> dict[str, Any]:
        return {
            "type": context.type,
            "attempt": context.attempt,
            "left": (context.deadline - datetime.now(UTC)).total_seconds(),
            "version": context.job_id.version,
        }

    run = await run_handler(facts, None, attempt=3, deadline_seconds=60)
    assert (run.result["type"], run.result["attempt"]) == ("probe/facts", 3)
    assert 0 < run.result["left"] <= 60
    assert run.result["version"] == 7


async def test_a_client_for_http_can_be_given_and_stays_open() -> None:
    @handler("probe/http")
    async def fetch(payload: object, context: Context) -> Any:
        return (await context.http.get("http://service/x")).json()

    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=str(request.url)))
    async with httpx.AsyncClient(transport=transport) as client:
        assert (await run_handler(fetch, None, http=client)).result == "http://service/x"
        assert not client.is_closed


async def test_a_client_of_the_context_is_closed() -> None:
    kept: list[httpx.AsyncClient] = []

    @handler("probe/own-http")
    async def fetch(payload: object, context: Context) -> None:
        kept.append(context.http)

    await run_handler(fetch, None)
    assert kept[0].is_closed


async def test_the_log_is_json_lines_that_name_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    @handler("probe/log")
    async def logs(payload: object, context: Context) -> str:
        context.log.info("begun", page=3)
        return str(context.job_id)

    run = await run_handler(logs, None)
    line = json.loads(capsys.readouterr().err)
    assert line["event"] == "begun"
    assert (line["page"], line["job_type"], line["job_id"]) == (3, "probe/log", run.result)
