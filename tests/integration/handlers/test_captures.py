"""What is still to be captured, the jobs asked for it, cooldowns, logs and tracking."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from hybridjobs.handlers.github.cooldowns import SyncState
from hybridjobs.handlers.github.details import pull_request_details
from hybridjobs.handlers.github.follow_ups import Due, FollowUp, Part, follow_ups
from hybridjobs.handlers.github.rows import page
from hybridjobs.handlers.github.sync import repository_sync
from hybridjobs.handlers.github.tables import GitHubTables, SyncCounts
from hybridjobs.ids import new_id
from hybridjobs.sdk import PermanentError
from hybridjobs.sdk.handler import Handler
from hybridjobs.sdk.testing import run_handler
from tests import github_objects as objects
from tests.builders import new_job
from tests.integration.handlers.conftest import Query
from tests.integration.store.scene import Queue

PARTS: tuple[Part, ...] = ("details", "reviews", "comments")
TYPES: dict[str, tuple[Part, ...]] = {
    "capture/pr.details": ("details",),
    "capture/pr.discussion": ("reviews", "comments"),
}
PULLS = [objects.pull_request(number, state="closed" if number == 2 else "open")
         for number in (1, 2, 3)]  # fmt: skip


async def plan(tables: GitHubTables, repository_id: UUID, parent: UUID) -> list[FollowUp]:
    due = await tables.captures.due("pull_request", repository_id, PARTS)
    now = datetime.now(UTC)
    return follow_ups(due, TYPES, repository={"owner": "octo-org"}, parent=parent, now=now)


async def capture(tables: GitHubTables, parent: UUID, *pulls: Any) -> list[UUID]:
    """As a sync does: a page with its follow-ups; their ids."""
    async with tables.writing(page(objects.repository(), pulls or PULLS)) as written:
        jobs = await plan(tables, written.repository_id, parent)
        return await tables.captures.submit("pull_request", parent, written.repository_id, jobs)


async def test_follow_ups_are_children_of_their_job_and_of_its_repository(
    tables: GitHubTables, queue: Queue, parent: UUID, query: Query
) -> None:
    ids = await capture(tables, parent)
    rows = await queue.rows(
        "SELECT id, type, payload, parent_id, repository_id, priority, submitted_by"
        " FROM background_jobs WHERE parent_id IS NOT NULL ORDER BY type"
    )
    (repository,) = await query("SELECT id FROM github.repositories")
    assert {row["id"] for row in rows} == set(ids)
    assert [row["type"] for row in rows] == list(TYPES)
    for row in rows:
        assert row["payload"] == {"owner": "octo-org", "numbers": [1, 2, 3]}
        assert (row["parent_id"], row["submitted_by"]) == (parent, "jobs")
        assert row["repository_id"] == repository["id"]


async def test_a_retry_asks_for_nothing_twice(
    tables: GitHubTables, queue: Queue, parent: UUID
) -> None:
    first = await capture(tables, parent)
    assert len(first) == 2
    # The page once more, with one more and one that changed meanwhile.
    assert await capture(tables, parent) == []
    changed = objects.pull_request(1, updated_at="2026-02-01T00:00:00Z")
    second = await capture(tables, parent, changed, *PULLS[1:], objects.pull_request(4))
    numbers = await queue.rows(
        "SELECT payload->'numbers' AS numbers FROM background_jobs WHERE id = ANY(%s)", second
    )
    assert [row["numbers"] for row in numbers] == [[1, 4], [1, 4]]


async def test_the_same_plan_is_the_same_jobs(
    tables: GitHubTables, queue: Queue, parent: UUID
) -> None:
    repository_id = (await tables.write(page(objects.repository(), PULLS))).repository_id
    jobs = await plan(tables, repository_id, parent)
    first = await tables.captures.submit("pull_request", parent, repository_id, jobs)
    assert await tables.captures.submit("pull_request", parent, repository_id, jobs) == first
    assert len(set(first)) == 2


async def test_page_and_follow_ups_commit_together(
    tables: GitHubTables, queue: Queue, parent: UUID, query: Query
) -> None:
    async def dies() -> None:
        async with tables.writing(page(objects.repository(), PULLS)) as written:
            jobs = await plan(tables, written.repository_id, parent)
            await tables.captures.submit("pull_request", parent, written.repository_id, jobs)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await dies()
    assert await query("SELECT FROM github.pull_requests") == []
    assert await queue.value("SELECT count(*) FROM background_jobs") == 1


async def test_what_was_captured_is_due_when_it_changes(
    tables: GitHubTables, queue: Queue, parent: UUID
) -> None:
    repository_id = (await tables.write(page(objects.repository(), PULLS))).repository_id
    due = await tables.captures.due("pull_request", repository_id, PARTS)
    assert [each.number for each in due] == [1, 3, 2]  # open ones first
    assert [each.parts for each in due] == [["comments", "details", "reviews"]] * 3
    known = await tables.captures.updated_at("pull_request", repository_id, [1, 2, 3, 99])
    assert known == dict.fromkeys((1, 2, 3), datetime(2026, 1, 2, tzinfo=UTC))
    await tables.captures.set_captured("pull_request", repository_id, PARTS[:2], known)

    async def left() -> list[tuple[int, list[str]]]:
        found = await tables.captures.due("pull_request", repository_id, PARTS, numbers=[1, 2])
        return [(each.number, list(each.parts)) for each in found]

    assert await left() == [(1, ["comments"]), (2, ["comments"])]
    # Changed on GitHub while its reviews were read: those are due again, and stay so when another
    # job tells of earlier ones.
    await tables.write(
        page(objects.repository(), [objects.pull_request(1, updated_at="2026-01-09T00:00:00Z")])
    )
    assert await left() == [(1, ["comments", "details", "reviews"]), (2, ["comments"])]
    now = await tables.captures.updated_at("pull_request", repository_id, [1])
    await tables.captures.set_captured("pull_request", repository_id, PARTS, now)
    await tables.captures.set_captured("pull_request", repository_id, PARTS, known)
    assert await left() == []


async def test_a_request_is_forgotten_after_a_day(
    tables: GitHubTables, queue: Queue, parent: UUID, query: Query
) -> None:
    await capture(tables, parent)
    await query("UPDATE github.pull_request_captures SET requested_at = now() - interval '25 h'"
                " RETURNING 1")  # fmt: skip
    await queue.end_all()
    (other,) = await queue.enqueue(new_job())
    assert other in await queue.claimed()
    assert await capture(tables, other) != []


async def test_comments_of_issues_are_followed_too(
    tables: GitHubTables, queue: Queue, parent: UUID, query: Query
) -> None:
    issues = [objects.issue(7), objects.issue(8)]
    repository_id = (await tables.write(page(objects.repository(), issues=issues))).repository_id
    due = await tables.captures.due("issue", repository_id, ["comments"])
    (job,) = follow_ups(
        due, {"test/long": ["comments"]}, repository={}, parent=parent, now=datetime.now(UTC)
    )
    assert await tables.captures.submit("issue", parent, repository_id, [job])
    assert await tables.captures.due("issue", repository_id, ["comments"]) == []
    known = await tables.captures.updated_at("issue", repository_id, [7])
    await tables.captures.set_captured("issue", repository_id, ["comments"], known)
    (row,) = await query("SELECT count(captured_for) AS captured FROM github.issue_captures")
    assert row == {"captured": 1}


def _job(type_: str, parent: UUID) -> FollowUp:
    due = Due(new_id(), 1, datetime.now(UTC), True, ("details",))
    (job,) = follow_ups(
        [due], {type_: ["details"]}, repository={}, parent=parent, now=due.updated_at
    )
    return job


async def test_an_unknown_type_is_a_permanent_error(tables: GitHubTables, parent: UUID) -> None:
    with pytest.raises(PermanentError, match=r"no job type nope \(known types: capture/"):
        await tables.captures.submit("pull_request", parent, new_id(), [_job("nope", parent)])


async def test_only_a_job_that_runs_has_children_and_a_repository(
    tables: GitHubTables, queue: Queue, parent: UUID
) -> None:
    repository_id = (await tables.write(page(objects.repository()))).repository_id
    assert await tables.captures.set_job_repository(parent, repository_id) is True
    assert await tables.captures.set_job_repository(parent, repository_id) is True
    found = "SELECT repository_id FROM background_jobs WHERE id = %s"
    assert await queue.value(found, parent) == repository_id
    await queue.end(parent)
    (waiting,) = await queue.enqueue(new_job())
    for job_id in (parent, waiting, new_id()):
        assert await tables.captures.set_job_repository(job_id, new_id()) is False
        with pytest.raises(PermanentError, match=f"job {job_id} does not run, so it submits"):
            await tables.captures.submit(
                "pull_request", job_id, repository_id, [_job("test/long", job_id)]
            )
    assert await queue.value(found, parent) == repository_id
    # The services submit for whom they like.
    assert await queue.value("SELECT submit_job('test/long', parent_id => %s)", parent)


@pytest.mark.usefixtures("github")
@pytest.mark.parametrize("handler", [pull_request_details, repository_sync])
async def test_a_handler_tells_the_repository_of_its_job(
    handler: Handler[Any, Any], queue: Queue, parent: UUID, query: Query
) -> None:
    payload = {"owner": "Codertocat", "repo": "Hello-World", "number": 2}
    await run_handler(handler, payload, job_id=parent)
    (repository,) = await query("SELECT id FROM github.repositories")
    found = await queue.value("SELECT repository_id FROM background_jobs WHERE id = %s", parent)
    assert found == repository["id"]


async def test_the_state_of_a_sync(tables: GitHubTables, queue: Queue, query: Query) -> None:
    repositories = tables.repositories
    repository_id = (await tables.write(page(objects.repository(), PULLS))).repository_id
    assert await repositories.sync_state(new_id()) is None
    assert await repositories.sync_state(repository_id) == SyncState("idle", None, False)
    await repositories.set_sync_status(repository_id, "syncing", total_pull_requests=3)
    await repositories.set_sync_status(repository_id, "completed")
    known = await tables.captures.updated_at("pull_request", repository_id, [1, 2, 3])
    await tables.captures.set_captured("pull_request", repository_id, PARTS, known)
    state = await repositories.sync_state(repository_id)
    assert state is not None
    assert (state.sync_status, state.is_complete) == ("completed", True)
    assert state.last_synced_at is not None
    assert datetime.now(UTC) - state.last_synced_at < timedelta(minutes=1)
    await repositories.set_sync_status(repository_id, "failed")
    (row,) = await query("SELECT last_synced_at, total_pull_requests FROM github.repositories")
    assert row == {"last_synced_at": state.last_synced_at, "total_pull_requests": 3}


async def test_a_log_is_one_row_a_job(tables: GitHubTables, query: Query) -> None:
    job_id = new_id()
    repository_id = (await tables.write(page(objects.repository()))).repository_id
    log_id = await tables.sync_logs.start(job_id, "capture/repository.sync")
    await tables.sync_logs.progress(log_id, SyncCounts(processed=100, inserted=90, calls_used=1))
    await tables.sync_logs.fail(log_id, SyncCounts(100, 90, 0, 3, 2, 4998), "no\x00" + "x" * 5000)
    (row,) = await query("SELECT * FROM github.sync_logs")
    assert (row["status"], len(row["error_message"])) == ("failed", 2000)
    assert row["completed_at"] is not None
    assert await tables.sync_logs.start(job_id, "capture/repository.sync", repository_id) == log_id
    (row,) = await query("SELECT * FROM github.sync_logs")
    assert (row["status"], row["completed_at"], row["error_message"]) == ("started", None, None)
    counts = SyncCounts(processed=200, inserted=180, updated=20, calls_used=4)
    await tables.sync_logs.complete(log_id, counts, metadata={"pages": 2})
    (row,) = await query("SELECT * FROM github.sync_logs")
    assert row["started_at"] < row["completed_at"]
    assert row.items() >= {
        "id": log_id, "job_id": job_id, "sync_type": "capture/repository.sync",
        "repository_id": repository_id, "status": "completed", "records_processed": 200,
        "records_inserted": 180, "records_updated": 20, "records_failed": 3,
        "github_api_calls_used": 4, "rate_limit_remaining": 4998, "error_message": None,
        "metadata": {"pages": 2},
    }.items()  # fmt: skip


async def test_what_is_to_be_classified(tables: GitHubTables, query: Query) -> None:
    repositories = tables.repositories
    ids = {}
    for number, name in enumerate(("unknown", "old", "high", "low", "gone", "off", "untracked"), 1):
        found = objects.repository(number, f"a/{name}")
        ids[name] = (await tables.write(page(found))).repository_id
        if name != "untracked":
            assert await repositories.track(ids[name], "high" if name == "high" else "low")
    assert await repositories.track(ids["high"], "low") is False
    for name in ("old", "high", "low", "off"):
        await repositories.set_size(ids[name], "medium", {"stars": 5})
    age = (
        "UPDATE github.tracked_repositories SET size_calculated_at = now() - %s,"
        " tracking_enabled = %s WHERE repository_id = %s RETURNING size, metrics, priority"
    )
    (row,) = await query(age, timedelta(days=31), True, ids["old"])
    assert row == {"size": "medium", "metrics": {"stars": 5}, "priority": "low"}
    await query(age, timedelta(days=8), True, ids["high"])
    await query(age, timedelta(days=8), True, ids["low"])
    await query(age, timedelta(days=31), False, ids["off"])
    await repositories.set_gone(ids["gone"])
    found_names = [each.name for each in await repositories.to_classify(10)]
    assert found_names == ["unknown", "old", "high"]
    assert [each.name for each in await repositories.to_classify(1)] == ["unknown"]
    await repositories.set_size(ids["unknown"], "small", {})
    await repositories.set_size(ids["untracked"], "xl", {})
    assert [each.name for each in await repositories.to_classify(10)] == ["old", "high"]
