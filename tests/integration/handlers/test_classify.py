"""Sizes of repositories, measured on the simulated GitHub."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from hybridjobs.handlers.github.classification import Metrics, size_of
from hybridjobs.handlers.github.classify import classify_repositories, classify_repository
from hybridjobs.handlers.github.measuring import MAX_WAITS
from hybridjobs.handlers.github.rows import page
from hybridjobs.handlers.github.tables import GitHubTables
from hybridjobs.ids import new_id
from hybridjobs.sdk import PermanentError, RetryLater
from hybridjobs.sdk.testing import HandlerRun, run_handler
from tests import github_objects as objects
from tests.builders import new_job
from tests.integration.handlers.conftest import Query
from tests.integration.store.scene import Queue
from tests.recorded.server import Fault, GitHub
from tests.recorded.server.plan import Plan

NAME = "octo-org/busy"
PAYLOAD = {"owner": "octo-org", "repo": "busy"}
DAY_SECONDS = 86_400


async def _parent(queue: Queue) -> UUID:
    (id_,) = await queue.enqueue(new_job())
    assert id_ in await queue.claimed()
    return id_


async def _finished(
    run: HandlerRun | None = None, checkpoint: Any = None, **payload: Any
) -> tuple[HandlerRun, int]:
    """Run it as often as it is put back; the last run, and how often it was."""
    for waits in range(MAX_WAITS + 2):
        run = HandlerRun()
        try:
            await run_handler(
                classify_repository, payload or PAYLOAD, run=run, checkpoint=checkpoint
            )
        except RetryLater:
            checkpoint = run.checkpoints[-1]
        else:
            return run, waits
    raise AssertionError("GitHub never ends counting")


def _busy(github: GitHub, **changes: Any) -> Any:
    plan = {"pull_requests": 400, "issues": 40, "span_days": 61, "contributors": 30, **changes}
    github.simulate(Plan(full_name=NAME, **plan))
    return github.contents[github.names[NAME]]


def _expected(contents: Any, calculated: str) -> dict[str, int]:
    now = datetime.fromisoformat(calculated).timestamp()
    month, weeks = now - 30 * DAY_SECONDS, now - 28 * DAY_SECONDS
    return {
        "stars": contents.repository["stargazers_count"],
        "forks": contents.repository["forks_count"],
        "monthlyPRs": sum(contents.created(each) >= month for each in contents.numbers("pull")),
        "monthlyCommits": sum(
            commits
            for week in contents.commit_activity()
            for day, commits in enumerate(week["days"])
            if week["week"] + day * DAY_SECONDS >= weeks
        ),
        "activeContributors": sum(
            sum(week["c"] for week in each["weeks"] if week["w"] >= weeks) > 0
            for each in contents.contributor_activity()
        ),
    }


async def test_all_five_figures_are_measured(github: GitHub, query: Query) -> None:
    contents = _busy(github)
    contents.repository |= {"stargazers_count": 12_000, "forks_count": 4_999}
    run, waits = await _finished()
    expected = _expected(contents, run.result["metrics"]["lastCalculated"])
    # Neither everything nor nothing, and more than a page of each list.
    assert 100 < expected["monthlyPRs"] < 360
    assert 0 < expected["activeContributors"] < 30
    (row,) = await query(
        "SELECT r.full_name, t.* FROM github.tracked_repositories t"
        " JOIN github.repositories r ON r.id = t.repository_id"
    )
    metrics = dict(row["metrics"])
    calculated = datetime.fromisoformat(metrics.pop("lastCalculated"))
    assert metrics == expected
    assert row["full_name"] == NAME
    assert row["size"] == run.result["size"] == "large"
    assert row["size"] == size_of(Metrics(*expected.values()))
    assert datetime.now(UTC) - calculated < timedelta(minutes=1)
    assert datetime.now(UTC) - row["size_calculated_at"] < timedelta(minutes=1)
    assert run.result["repositoryId"] == str(row["repository_id"])
    # Put back once, as GitHub counts for both meanwhile; nothing is asked for twice but these.
    assert waits == 1
    asked = sorted(each["path"].rpartition("/")[2] for each in github.requests)
    assert asked == ["busy", *["commit_activity"] * 2, *["contributors"] * 2, "graphql"]


async def test_statistics_that_are_never_ready_have_no_vote(github: GitHub, query: Query) -> None:
    contents = _busy(github)
    github.stats_waits = 10_000
    run, waits = await _finished()
    assert waits == MAX_WAITS
    metrics = run.result["metrics"]
    assert (metrics["monthlyCommits"], metrics["activeContributors"]) == (None, None)
    assert (
        metrics["monthlyPRs"]
        == _expected(contents, run.result["metrics"]["lastCalculated"])["monthlyPRs"]
    )
    (row,) = await query("SELECT metrics FROM github.tracked_repositories")
    assert row["metrics"] == metrics


async def test_a_rate_limit_keeps_what_is_measured(github: GitHub, query: Query) -> None:
    _busy(github)
    github.stats_waits = 0
    run = HandlerRun()
    github.faults.append(
        Fault(status=403, path="/stats/contributors$", headers={"retry-after": "1"})
    )
    with pytest.raises(RetryLater):
        await run_handler(classify_repository, PAYLOAD, run=run)
    (log,) = await query("SELECT status, github_api_calls_used AS calls FROM github.sync_logs")
    assert log == {"status": "started", "calls": len(github.requests)}
    found = run.checkpoints[-1]["found"]
    assert found.keys() == {"stars", "forks", "monthly_prs", "monthly_commits"}
    assert run.checkpoints[-1]["waits"] == 0


async def test_after_a_kill_no_figure_is_asked_for_again(github: GitHub) -> None:
    _busy(github)
    github.stats_waits = 0
    run = await run_handler(classify_repository, PAYLOAD)
    asked = len(github.requests)
    for checkpoint in run.checkpoints:
        again = await run_handler(classify_repository, PAYLOAD, checkpoint=checkpoint)
        assert again.result["metrics"] == run.result["metrics"]
    # Of the four requests: after each checkpoint one less.
    assert (asked, len(run.checkpoints)) == (4, 4)
    assert len(github.requests) == 4 + 3 + 2 + 1


async def test_without_a_token_pull_requests_are_counted_by_pages(
    github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "")
    contents = _busy(github)
    github.stats_waits = 0
    run, _ = await _finished()
    assert (
        run.result["metrics"]["monthlyPRs"]
        == _expected(contents, run.result["metrics"]["lastCalculated"])["monthlyPRs"]
    )
    assert run.result["metrics"]["monthlyCommits"] > 0


async def test_an_empty_repository_is_small(github: GitHub) -> None:
    _busy(github, pull_requests=0, issues=0)
    github.condition(NAME, "empty", [])
    run, waits = await _finished()
    assert (run.result["size"], waits) == ("small", 0)
    assert run.result["metrics"]["monthlyCommits"] == 0


async def test_by_its_id_a_renamed_repository_is_found(
    github: GitHub, tables: GitHubTables, query: Query
) -> None:
    contents = _busy(github)
    github.stats_waits = 0
    repository_id = (await tables.write(page(contents.repository))).repository_id
    github.rename(NAME, "octo-org/calm")
    run, _ = await _finished(repositoryId=str(repository_id))
    assert run.result["fullName"] == "octo-org/calm"
    assert run.result["metrics"]["monthlyPRs"] > 0
    (row,) = await query("SELECT id, full_name FROM github.repositories")
    assert row == {"id": repository_id, "full_name": "octo-org/calm"}


async def test_one_that_is_gone_is_not_asked_for_again(
    github: GitHub, tables: GitHubTables, query: Query
) -> None:
    contents = _busy(github)
    repository_id = (await tables.write(page(contents.repository))).repository_id
    await tables.repositories.track(repository_id)
    github.condition(NAME, "deleted", [])
    with pytest.raises(PermanentError, match="404"):
        await run_handler(classify_repository, {"repositoryId": str(repository_id)})
    assert await tables.repositories.to_classify(10) == []


async def test_a_name_that_passed_on_is_no_longer_the_repository(
    github: GitHub, tables: GitHubTables, query: Query
) -> None:
    _busy(github)
    stored = objects.repository(4711, NAME)
    repository_id = (await tables.write(page(stored))).repository_id
    with pytest.raises(PermanentError, match="another repository by now"):
        await run_handler(classify_repository, {"repositoryId": str(repository_id)})
    (row,) = await query("SELECT github_id, is_active FROM github.repositories")
    assert row == {"github_id": 4711, "is_active": False}
    (log,) = await query("SELECT sync_type, status, repository_id FROM github.sync_logs")
    assert log == {
        "sync_type": "classify/repository.single",
        "status": "failed",
        "repository_id": repository_id,
    }


@pytest.mark.usefixtures("github")
async def test_what_is_to_be_classified_gets_a_job_each(
    tables: GitHubTables, queue: Queue, query: Query
) -> None:
    ids = {}
    for number in range(1, 4):
        found = objects.repository(number, f"a/r{number}")
        ids[f"r{number}"] = (await tables.write(page(found))).repository_id
        await tables.repositories.track(ids[f"r{number}"])
    await tables.repositories.set_size(ids["r2"], "small", {})
    parent = await _parent(queue)
    run = await run_handler(classify_repositories, {}, job_id=parent)
    rows = await queue.rows(
        "SELECT id, type, payload, parent_id, repository_id FROM background_jobs"
        " WHERE parent_id IS NOT NULL"
    )
    assert {str(row["id"]) for row in rows} == set(run.result["jobs"])
    assert run.result["repositories"] == len(rows) == 2
    logs = await query("SELECT job_id, sync_type, status, metadata FROM github.sync_logs")
    assert [tuple(log.values()) for log in logs] == [
        (parent, "classify/repository.size", "completed", run.result)
    ]
    by_repository = {row["repository_id"]: row["payload"] for row in rows}
    assert by_repository == {
        ids[name]: {"repositoryId": str(ids[name]), "owner": "a", "repo": name}
        for name in ("r1", "r3")
    }
    assert {(row["type"], row["parent_id"]) for row in rows} == {
        ("classify/repository.single", parent)
    }
    # A retry, and the next tick while these wait, make none twice.
    again = await run_handler(classify_repositories, {}, job_id=parent)
    assert again.result == run.result
    later = await run_handler(classify_repositories, {}, job_id=await _parent(queue))
    assert later.result == run.result
    # When they have ended without a size, the next tick asks again.
    await queue.claim()
    await queue.end_all()
    fresh = await run_handler(classify_repositories, {"limit": 1}, job_id=await _parent(queue))
    assert fresh.result["repositories"] == 1
    assert not set(fresh.result["jobs"]) & set(run.result["jobs"])


async def test_all_jobs_are_submitted_or_none(
    tables: GitHubTables, queue: Queue, github: GitHub
) -> None:
    repository_id = (await tables.write(page(objects.repository()))).repository_id
    await tables.repositories.track(repository_id)
    with pytest.raises(PermanentError, match="does not run"):
        await run_handler(classify_repositories, {}, job_id=new_id())
    assert await queue.value("SELECT count(*) FROM background_jobs") == 0
