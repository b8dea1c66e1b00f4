"""Syncs, and the jobs that follow from them."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from hybridjobs.handlers.github import fan_out
from hybridjobs.handlers.github.client import TransientError
from hybridjobs.handlers.github.details import pull_request_details
from hybridjobs.handlers.github.discussions import (
    issue_comments,
    pull_request_comments,
    pull_request_reviews,
)
from hybridjobs.handlers.github.issues import repository_issues
from hybridjobs.handlers.github.sync import repository_sync
from hybridjobs.sdk import RetryLater
from hybridjobs.sdk.handler import Handler
from hybridjobs.sdk.testing import run_handler
from tests.builders import job_type
from tests.integration.handlers.conftest import Query
from tests.integration.handlers.test_discussions import HERE, NAME, numbers, stored, truth
from tests.integration.handlers.test_sync import LARGE, PAYLOAD, pages_asked, pass_time
from tests.integration.store.scene import Queue
from tests.recorded.server import Fault, GitHub
from tests.recorded.server.plan import Plan

HANDLERS: dict[str, Handler[Any, Any]] = {
    each.type: each
    for each in (
        pull_request_details,
        pull_request_reviews,
        pull_request_comments,
        issue_comments,
    )
}
OF_PULLS = sorted(set(HANDLERS) - {"capture/issue.comments"})


@pytest.fixture
def simulated(github: GitHub) -> GitHub:
    github.simulate(Plan(NAME, pull_requests=120, issues=30, heavy_every=100, heavy=130))
    return github


async def children(queue: Queue) -> list[dict[str, Any]]:
    return await queue.rows(
        "SELECT id, type, payload, priority, repository_id FROM background_jobs"
        " WHERE parent_id IS NOT NULL ORDER BY type, created_at, id"
    )


async def test_a_sync_and_what_follows_from_it_are_the_truth(
    simulated: GitHub, queue: Queue, parent: UUID, query: Query
) -> None:
    run = await run_handler(repository_sync, HERE | {"days": 3650}, job_id=parent)
    await run_handler(repository_issues, HERE | {"days": 3650}, job_id=parent)
    found = await children(queue)
    assert {each["type"] for each in found} == set(HANDLERS)
    for type_ in OF_PULLS:
        theirs = [each["payload"] for each in found if each["type"] == type_]
        assert sorted(n for each in theirs for n in each["numbers"]) == numbers(simulated, "pull")
        assert max(len(each["numbers"]) for each in theirs) == 100
        assert {each["repositoryId"] for each in theirs} == {run.result["repositoryId"]}
    assert run.result["followUps"] == len([each for each in found if each["type"] in OF_PULLS])
    for each in found:
        await run_handler(HANDLERS[each["type"]], each["payload"])
    for table in ("pull_requests", "reviews", "comments", "issues"):
        assert await stored(query, table) == truth(simulated, table), table

    # All is captured: another sync has nothing to ask for.
    await pass_time(query)
    again = await run_handler(repository_sync, HERE | {"days": 3650}, job_id=parent)
    await run_handler(repository_issues, HERE | {"days": 3650}, job_id=parent)
    assert again.result["followUps"] == 0
    assert await children(queue) == found


async def test_issues_without_comments_are_kept_and_not_followed(
    simulated: GitHub, queue: Queue, parent: UUID, query: Query
) -> None:
    run = await run_handler(repository_issues, HERE | {"timeRange": 3650}, job_id=parent)
    assert (run.result["issues"], run.result["pages"]) == (30, 3)  # the first page once more
    asked = [number for each in await children(queue) for number in each["payload"]["numbers"]]
    rows = await query("SELECT number, comments_count FROM github.issues ORDER BY number")
    assert [row["number"] for row in rows] == numbers(simulated, "issue")
    talked = [row["number"] for row in rows if row["comments_count"] > 0]
    assert sorted(asked) == talked
    assert 0 < len(talked) < 30


async def test_issues_are_read_since(simulated: GitHub, query: Query) -> None:
    await run_handler(repository_issues, HERE | {"days": 10})
    (row,) = await query(
        "SELECT count(*), min(updated_at) > now() - interval '10 days' AS recent FROM github.issues"
    )
    assert 0 < row["count"] < 30
    assert row["recent"] is True


async def test_an_attempt_that_lost_its_checkpoint_submits_nothing_twice(
    github: GitHub, queue: Queue, parent: UUID, query: Query
) -> None:
    github.large(LARGE, 250, step_seconds=600)
    github.faults.append(Fault(status=403, path="/pulls$", after=2, headers={"retry-after": "1"}))
    with pytest.raises(RetryLater):
        await run_handler(repository_sync, PAYLOAD, job_id=parent)
    assert len(await children(queue)) == 6
    github.limits.points.clear()
    github.faults.clear()
    await query("DELETE FROM github.rate_limits RETURNING 1")
    run = await run_handler(repository_sync, PAYLOAD, job_id=parent, attempt=2)
    found = await children(queue)
    assert len(found) == 9
    assert run.result["followUps"] == 3
    seen = [(each["type"], n) for each in found for n in each["payload"]["numbers"]]
    assert len(seen) == len(set(seen)) == 750


async def test_follow_ups_are_bounded_and_the_rest_stays_due(
    github: GitHub, queue: Queue, parent: UUID, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    github.large(LARGE, 250, step_seconds=600)
    monkeypatch.setattr(fan_out, "MAX_FOLLOW_UPS", 4)
    run = await run_handler(repository_sync, PAYLOAD, job_id=parent)
    assert run.result["followUps"] == len(await children(queue)) == 4
    (row,) = await query("SELECT count(*) FROM github.pull_request_captures")
    assert row == {"count": 400}  # three parts of the newest hundred, one of those behind


async def test_follow_ups_and_deliveries_have_one_concurrency_key(
    simulated: GitHub, queue: Queue, parent: UUID
) -> None:
    limit = {"limit": 5, "key": "repository.full_name | owner/repo | repositoryId"}
    await queue.register(job_type("capture/pr.details", generation=2, concurrency=limit))
    await run_handler(repository_sync, HERE, job_id=parent)
    keys = await queue.rows(
        "SELECT DISTINCT concurrency_key FROM background_jobs WHERE type = 'capture/pr.details'"
    )
    assert keys == [{"concurrency_key": NAME}]


async def test_without_a_job_in_the_queue_nothing_follows(github: GitHub, queue: Queue) -> None:
    github.large(LARGE, 150, step_seconds=600)
    run = await run_handler(repository_sync, PAYLOAD)
    assert run.result["followUps"] == 0
    assert await children(queue) == []


@pytest.mark.parametrize(
    ("reason", "ago", "skipped"),
    [
        ("manual", timedelta(minutes=4), True),
        ("manual", timedelta(minutes=6), False),
        ("scheduled", timedelta(hours=23), True),
        ("scheduled", timedelta(hours=25), False),
        (None, timedelta(hours=11), True),
        (None, timedelta(hours=13), False),
    ],
)
async def test_a_sync_too_soon_stores_the_repository_alone(
    reason: str | None, ago: timedelta, skipped: bool, github: GitHub, query: Query
) -> None:
    # Without pull requests, none of which could be incomplete.
    payload = {"owner": "Codertocat", "repo": "Hello-World", "days": 1}
    await run_handler(repository_sync, payload)
    await query("UPDATE github.repositories SET last_synced_at = now() - %s RETURNING 1", ago)
    github.change("Codertocat/Hello-World", None, {"description": "changed"})
    github.requests.clear()
    run = await run_handler(repository_sync, payload | ({"reason": reason} if reason else {}))
    assert ("coolsUntil" in run.result) == skipped
    assert bool(pages_asked(github)) != skipped
    rows = await query("SELECT description, last_synced_at FROM github.repositories")
    assert rows[0]["description"] == "changed"
    if skipped:
        assert datetime.fromisoformat(run.result["coolsUntil"]) > rows[0]["last_synced_at"]


async def test_what_was_never_captured_makes_it_five_minutes(github: GitHub, query: Query) -> None:
    github.large(LARGE, 5, step_seconds=600)
    await run_handler(repository_sync, PAYLOAD)
    ago = "UPDATE github.repositories SET last_synced_at = now() - interval '6 min' RETURNING 1"
    await query(ago)
    run = await run_handler(repository_sync, PAYLOAD | {"reason": "scheduled"})
    assert "coolsUntil" not in run.result


async def test_a_sync_that_failed_cools_nothing(github: GitHub, query: Query) -> None:
    github.large(LARGE, 150, step_seconds=600)
    await run_handler(repository_sync, PAYLOAD)
    await pass_time(query)
    github.faults.append(Fault(status=500, path="/pulls$", times=9))
    with pytest.raises(TransientError):
        await run_handler(repository_sync, PAYLOAD)
    github.faults.clear()
    (row,) = await query("SELECT sync_status FROM github.repositories WHERE full_name = %s", LARGE)
    assert row == {"sync_status": "failed"}
    (log,) = await query("SELECT error_message FROM github.sync_logs WHERE status = 'failed'")
    assert "GitHub answers 500" in log["error_message"]
    await query("UPDATE github.repositories SET last_synced_at = now() RETURNING 1")
    run = await run_handler(repository_sync, PAYLOAD)
    assert run.result["pullRequests"] == 150
