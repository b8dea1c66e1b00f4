"""Both handlers on a simulated GitHub: what ends up in the tables is the truth."""

from uuid import UUID

import pytest

from hybridjobs.handlers.github import fan_out
from hybridjobs.handlers.github.graph.details import pull_requests_graphql
from hybridjobs.handlers.github.graph.sync import PRIORITIES, repository_sync_graphql
from hybridjobs.ids import new_id
from hybridjobs.sdk import PermanentError, RetryLater
from hybridjobs.sdk.testing import HandlerRun, run_handler
from tests.integration.handlers.compared import COLUMNS, as_stored, stored
from tests.integration.handlers.conftest import Query
from tests.integration.handlers.killing import killed
from tests.integration.store.scene import Queue
from tests.recorded.server import Fault, GitHub
from tests.recorded.server.plan import Plan
from tests.recorded.server.truth import rows as truth

NAME = "octo-org/simulated"
PAYLOAD = {"owner": "octo-org", "repo": "simulated", "reason": "manual"}
PLAN = {"fullName": NAME, "pullRequests": 130, "heavyEvery": 100, "heavy": 130}


async def assert_true(github: GitHub, query: Query) -> None:
    expected = as_stored(truth(github.contents[github.names[NAME]]))
    for table in COLUMNS:
        assert await stored(query, table) == expected[table], table
        assert expected[table], table


def queries(github: GitHub) -> int:
    return sum(each["path"] == "/graphql" for each in github.requests)


async def follow(queue: Queue, seen: set[UUID] | None = None) -> int:
    """Run the jobs that were submitted; how many there were."""
    rows = await queue.rows(
        "SELECT id, payload FROM background_jobs WHERE parent_id IS NOT NULL ORDER BY id"
    )
    fresh = [row for row in rows if seen is None or row["id"] not in seen]
    for row in fresh:
        await run_handler(pull_requests_graphql, row["payload"], job_id=row["id"])
        if seen is not None:
            seen.add(row["id"])
    return len(fresh)


async def test_a_repository_ends_as_it_is_twice_in_a_row(
    github: GitHub, queue: Queue, parent: UUID, query: Query
) -> None:
    github.simulate(Plan.of(PLAN))
    run = await run_handler(repository_sync_graphql, PAYLOAD, job_id=parent)
    assert (run.result["pullRequests"], run.result["followUps"]) == (130, 2)
    seen: set[UUID] = set()
    assert await follow(queue, seen) == 2
    await assert_true(github, query)
    # Two pages and the pass after them; one query a job; one more for what is heavy.
    assert queries(github) == 3 + 2 + 2
    (row,) = await query("SELECT sync_status, total_pull_requests FROM github.repositories")
    assert row == {"sync_status": "completed", "total_pull_requests": 130}
    logs = await query("SELECT sync_type, status FROM github.sync_logs ORDER BY started_at")
    assert [row["status"] for row in logs] == ["completed"] * 3

    skipped = await run_handler(repository_sync_graphql, PAYLOAD, job_id=parent)
    assert skipped.result["skipped"] is True
    await query("UPDATE github.repositories SET sync_status = 'failed' RETURNING id")
    again = await run_handler(repository_sync_graphql, PAYLOAD, job_id=parent)
    assert (again.result["inserted"], again.result["followUps"]) == (0, 0)
    await assert_true(github, query)


@pytest.mark.parametrize("saves", [1, 2, 3])
async def test_a_killed_sync_goes_on_and_reads_no_page_twice(
    github: GitHub, queue: Queue, parent: UUID, query: Query, saves: int
) -> None:
    github.simulate(Plan.of(PLAN))
    kept = await killed(repository_sync_graphql, PAYLOAD, parent, saves=saves)
    run = await run_handler(repository_sync_graphql, PAYLOAD, checkpoint=kept, job_id=parent)
    assert queries(github) == 3
    assert run.result["pullRequests"] == 130
    assert await follow(queue) == 2
    await assert_true(github, query)


@pytest.mark.parametrize("saves", [1, 2])
async def test_killed_details_go_on_and_ask_nothing_twice(
    github: GitHub, query: Query, saves: int
) -> None:
    github.simulate(Plan.of({**PLAN, "pullRequests": 20, "heavyEvery": 9, "heavy": 110}))
    payload = {"owner": "octo-org", "repo": "simulated", "numbers": list(range(1, 21))}
    job_id = new_id()
    whole = await run_handler(pull_requests_graphql, payload)
    expected = queries(github)
    assert expected > 2
    await query("DELETE FROM github.repositories RETURNING id")
    github.requests.clear()
    kept = await killed(pull_requests_graphql, payload, job_id, saves=saves)
    again = await run_handler(pull_requests_graphql, payload, checkpoint=kept, job_id=job_id)
    assert queries(github) == expected
    assert again.result["inserted"] == whole.result["inserted"]
    await assert_true(github, query)


async def test_a_limit_in_the_middle_puts_the_job_back(
    github: GitHub, queue: Queue, parent: UUID
) -> None:
    github.simulate(Plan.of(PLAN))
    limit = Fault(status=403, path="/graphql", after=1, headers={"retry-after": "30"})
    github.faults.append(limit)
    run = HandlerRun()
    with pytest.raises(RetryLater) as raised:
        await run_handler(repository_sync_graphql, PAYLOAD, run=run, job_id=parent)
    assert 25 < raised.value.after_seconds < 40
    assert run.checkpoints[-1]["page"] == 1


async def test_what_costs_more_than_is_left_is_not_asked_for(github: GitHub, query: Query) -> None:
    github.simulate(Plan.of(PLAN))
    await run_handler(repository_sync_graphql, PAYLOAD)
    await query(
        "UPDATE github.rate_limits SET remaining = 34 WHERE resource = 'graphql' RETURNING 1"
    )
    asked = queries(github)
    payload = {"owner": "octo-org", "repo": "simulated", "numbers": list(range(1, 101))}
    with pytest.raises(RetryLater, match="nothing left of graphql"):
        await run_handler(pull_requests_graphql, payload)
    assert queries(github) == asked
    # The price is GitHub's: with the reserve of ten it is 35.
    await query(
        "UPDATE github.rate_limits SET remaining = 35 WHERE resource = 'graphql' RETURNING 1"
    )
    left = github.limits.bucket("token", "graphql").remaining
    await run_handler(pull_requests_graphql, payload)
    assert left - github.limits.bucket("token", "graphql").remaining == queries(github) - asked + 24


async def test_502_makes_pages_smaller(
    github: GitHub, queue: Queue, parent: UUID, query: Query
) -> None:
    github.simulate(Plan.of({**PLAN, "pullRequests": 40}))
    github.timeout_nodes = 25_000
    await run_handler(repository_sync_graphql, PAYLOAD, job_id=parent)
    (job,) = await queue.rows("SELECT id, payload FROM background_jobs WHERE parent_id IS NOT NULL")
    run = await run_handler(pull_requests_graphql, job["payload"], job_id=job["id"])
    assert run.checkpoints[0]["asked"] < 40
    assert github.usage.troubles["timeout"] >= 1
    await assert_true(github, query)


async def test_without_graphql_it_goes_on_by_rest(
    github: GitHub, queue: Queue, parent: UUID, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridjobs.handlers.github.capturing.RETRIES", 0)
    github.simulate(Plan.of(PLAN))
    github.faults.append(Fault(status=500, path="/graphql", times=50))
    run = await run_handler(repository_sync_graphql, PAYLOAD, job_id=parent)
    assert (run.result["way"], run.result["pullRequests"]) == ("rest", 130)
    assert await query("SELECT count(*) FROM github.pull_requests") == [{"count": 130}]
    # A successor stays with REST.
    github.requests.clear()
    first = run.checkpoints[0]
    await run_handler(repository_sync_graphql, PAYLOAD, checkpoint=first, job_id=parent)
    assert queries(github) == 0


async def test_without_a_token_a_sync_goes_by_rest(
    github: GitHub, queue: Queue, parent: UUID, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "")
    github.simulate(Plan.of(PLAN))
    run = await run_handler(repository_sync_graphql, PAYLOAD, job_id=parent)
    assert (run.result["way"], run.result["pullRequests"]) == ("rest", 130)
    assert await query("SELECT count(*) FROM github.pull_requests") == [{"count": 130}]
    assert queries(github) == 0


async def test_rest_goes_on_from_the_times_of_graphql(
    github: GitHub, queue: Queue, parent: UUID, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridjobs.handlers.github.capturing.RETRIES", 0)
    github.simulate(Plan.of(PLAN))
    github.faults.append(Fault(status=500, path="/graphql", after=1, times=50))
    run = await run_handler(repository_sync_graphql, PAYLOAD | {"priority": "high"}, job_id=parent)
    first, turned, *_ = run.checkpoints
    assert (first["way"], first["items"], turned["way"], turned["items"]) == (
        "graphql", 100, "rest", 0,
    )  # fmt: skip
    assert (turned["since"], turned["began"]) == (first["since"], first["began"])
    assert run.result["pullRequests"] == 130
    rows = await queue.rows(
        "SELECT type, payload, priority FROM background_jobs WHERE parent_id IS NOT NULL"
    )
    asked = [(row["type"], n) for row in rows for n in row["payload"]["numbers"]]
    # The first page's by GraphQL, the others' by REST.
    assert len(asked) == len(set(asked)) == 100 + 3 * 30
    assert max(row["priority"] for row in rows) == PRIORITIES["high"]
    assert await query("SELECT sync_status FROM github.repositories") == [
        {"sync_status": "completed"}
    ]
    logs = await query("SELECT status, records_inserted FROM github.sync_logs")
    assert logs == [{"status": "completed", "records_inserted": 130}]


async def test_the_size_of_pages_is_kept(github: GitHub, queue: Queue, parent: UUID) -> None:
    github.simulate(Plan.of({**PLAN, "pullRequests": 40}))
    # The first page is too much, until it is half of that.
    github.faults.append(Fault(status=502, path="/graphql", times=2))
    kept = await killed(repository_sync_graphql, PAYLOAD, parent)
    assert (kept["size"], kept["items"]) == (50, 40)
    github.requests.clear()
    kept |= {"size": 10, "page": 0, "cursor": None}
    await run_handler(repository_sync_graphql, PAYLOAD, checkpoint=kept, job_id=parent)
    assert queries(github) > 3


async def test_follow_ups_of_graphql_are_bounded_too(
    github: GitHub, queue: Queue, parent: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "MAX_FOLLOW_UPS", 1)
    github.simulate(Plan.of(PLAN))
    run = await run_handler(repository_sync_graphql, PAYLOAD, job_id=parent)
    assert run.result["followUps"] == 1
    assert (
        await queue.value("SELECT count(*) FROM background_jobs WHERE parent_id = %s", parent) == 1
    )


async def test_without_a_token_it_is_said_what_is_missing(
    github: GitHub, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "")
    github.simulate(Plan.of({**PLAN, "pullRequests": 3}))
    with pytest.raises(PermanentError, match=r"set GITHUB_TOKEN.*capture/repository\.sync"):
        await run_handler(
            pull_requests_graphql, {"owner": "octo-org", "repo": "simulated", "number": 1}
        )
    (log,) = await query("SELECT status, error_message FROM github.sync_logs")
    assert log["status"] == "failed"
    assert "GITHUB_APP_ID" in log["error_message"]


async def test_numbers_that_are_not_there_are_told(github: GitHub) -> None:
    github.simulate(Plan.of({**PLAN, "pullRequests": 3}))
    payload = {"owner": "octo-org", "repo": "simulated", "numbers": [2, 900]}
    run = await run_handler(pull_requests_graphql, payload)
    assert (run.result["pullRequests"], run.result["missing"]) == (1, [900])
    with pytest.raises(PermanentError, match="no pull request 900"):
        await run_handler(pull_requests_graphql, payload | {"numbers": [900]})


async def test_a_repository_that_is_gone_is_noted(github: GitHub, query: Query) -> None:
    github.simulate(Plan.of({**PLAN, "pullRequests": 3}))
    await run_handler(repository_sync_graphql, PAYLOAD)
    (row,) = await query("SELECT id FROM github.repositories")
    github.condition(NAME, "deleted", [])
    with pytest.raises(PermanentError, match="NOT_FOUND"):
        await run_handler(
            pull_requests_graphql,
            {"repositoryId": str(row["id"]), "prNumber": 1},
        )
    assert await query("SELECT is_active FROM github.repositories") == [{"is_active": False}]
    logs = await query("SELECT repository_id FROM github.sync_logs WHERE status = 'failed'")
    assert logs == [{"repository_id": row["id"]}]
    with pytest.raises(PermanentError, match="is stored"):
        await run_handler(pull_requests_graphql, {"repositoryId": str(new_id()), "prNumber": 1})
