"""Both handlers on a simulated GitHub: what ends up in the tables is the truth."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from hybridjobs import codec
from hybridjobs.handlers.github.graph.details import pull_requests_graphql
from hybridjobs.handlers.github.graph.sync import repository_sync_graphql
from hybridjobs.ids import new_id
from hybridjobs.sdk import Context, PermanentError, RetryLater
from hybridjobs.sdk.handler import Handler
from hybridjobs.sdk.testing import HandlerRun, run_handler
from hybridjobs.store.database import Database
from tests.builders import job_type, new_job
from tests.conftest import DatabaseUrls
from tests.integration.handlers.compared import COLUMNS, as_stored, stored
from tests.integration.handlers.conftest import Query
from tests.integration.store.scene import Queue
from tests.recorded.server import Fault, GitHub
from tests.recorded.server.plan import Plan
from tests.recorded.server.truth import rows as truth

NAME = "octo-org/simulated"
PAYLOAD = {"owner": "octo-org", "repo": "simulated", "reason": "manual"}
PLAN = {"fullName": NAME, "pullRequests": 130, "heavyEvery": 100, "heavy": 130}
DETAILS = "capture/pr.details.graphql"


@pytest.fixture
async def queue(database_urls: DatabaseUrls) -> AsyncIterator[Queue]:
    async with Database(database_urls.service, size=2) as database:
        queue = Queue(database)
        await queue.register(job_type(), job_type(DETAILS))
        yield queue


@pytest.fixture
async def parent(queue: Queue) -> UUID:
    """A job that is being executed."""
    await queue.enqueue(new_job())
    (job_id,) = await queue.claimed()
    return job_id


class _Killed(Exception):  # noqa: N818 - what happened
    pass


class _Killer:
    """Keeps so many checkpoints; the job dies when it has saved the last of them."""

    def __init__(self, saves: int) -> None:
        self.saves = saves
        self.kept: Any = None

    async def progress(self, done: int, total: int | None, message: str | None) -> None: ...

    async def save_checkpoint(self, text: str) -> None:
        self.kept = codec.loads(text)
        self.saves -= 1
        if self.saves == 0:
            raise _Killed

    async def submit(self, type_: str, payload: str, key: str | None, priority: int | None) -> UUID:
        raise AssertionError


async def killed(
    handler: Handler[Any, Any], payload: object, job_id: UUID, *, saves: int = 1
) -> Any:
    """The checkpoint of an attempt that is killed after so many."""
    killer = _Killer(saves)
    deadline = datetime.now(UTC) + timedelta(minutes=1)
    context = Context(killer, job_id=job_id, type=handler.type, attempt=1, deadline=deadline)
    with pytest.raises(_Killed):
        await handler(handler.parse(payload), context)
    return killer.kept


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


@pytest.mark.parametrize("saves", [1, 2])
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
    monkeypatch.setattr("hybridjobs.handlers.github.graph.capture.RETRIES", 0)
    for part in ("details", "reviews", "comments"):
        await queue.register(job_type(f"capture/pr.{part}"))
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
    with pytest.raises(PermanentError, match="is stored"):
        await run_handler(pull_requests_graphql, {"repositoryId": str(new_id()), "prNumber": 1})
