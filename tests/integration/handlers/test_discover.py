"""A repository that is found: stored, tracked, and what follows, in one transaction."""

from typing import Any
from uuid import UUID

import pytest

from hybridjobs.handlers.github.classify import classify_repository
from hybridjobs.handlers.github.discover import discover_repository
from hybridjobs.handlers.github.rows import page
from hybridjobs.handlers.github.tables import GitHubTables
from hybridjobs.ids import new_id
from hybridjobs.sdk import PermanentError
from hybridjobs.sdk.testing import HandlerRun, run_handler
from hybridjobs.store.tree import get_tree
from tests.builders import new_job
from tests.integration.handlers.conftest import Query
from tests.integration.store.scene import Queue
from tests.recorded.server import GitHub
from tests.recorded.server.plan import Plan

NAME = "octo-org/found"
PAYLOAD = {"owner": "octo-org", "repo": "found", "source": "search"}
DISCOVER, SINGLE = "discover/repository.new", "classify/repository.single"
SYNC = "capture/repository.sync.graphql"
_CHILDREN = """
SELECT type, payload, priority, repository_id FROM background_jobs
WHERE parent_id = %s ORDER BY type
"""
_ROWS = """
SELECT r.id, r.github_id, r.full_name, r.is_active, t.priority, t.tracking_enabled
FROM github.repositories r LEFT JOIN github.tracked_repositories t ON t.repository_id = r.id
"""


async def _discovered(queue: Queue, **changes: Any) -> tuple[UUID, HandlerRun]:
    """As a job that runs in the queue."""
    (job_id,) = await queue.enqueue(new_job(DISCOVER))
    assert job_id in await queue.claimed()
    return job_id, await run_handler(discover_repository, PAYLOAD | changes, job_id=job_id)


@pytest.fixture
def found(github: GitHub) -> Any:
    github.simulate(Plan(full_name=NAME, pull_requests=3))
    return github.contents[github.names[NAME]].repository


async def test_a_new_one_is_stored_tracked_and_followed(
    found: Any, queue: Queue, query: Query
) -> None:
    job_id, run = await _discovered(queue)
    (row,) = await query(_ROWS)
    repository_id = row.pop("id")
    assert row == {
        "github_id": found["id"], "full_name": NAME, "is_active": True, "priority": "high",
        "tracking_enabled": True,
    }  # fmt: skip
    named = {"repositoryId": str(repository_id), "owner": "octo-org", "repo": "found"}
    sync, single = await queue.rows(_CHILDREN, job_id)
    assert single == {
        "type": SINGLE, "payload": named, "priority": 0, "repository_id": repository_id
    }  # fmt: skip
    assert sync == {
        "type": SYNC,
        "payload": named | {"days": 30, "priority": "high", "reason": "manual"},
        "priority": 50,
        "repository_id": repository_id,
    }
    assert run.result.items() >= {
        "new": True, "fullName": NAME, "githubId": found["id"], "source": "search",
        "repositoryId": str(repository_id),
    }.items()  # fmt: skip
    assert run.result["jobs"].keys() == {SINGLE, SYNC}
    assert (await queue.job(job_id))["repository_id"] == repository_id
    (log,) = await query("SELECT * FROM github.sync_logs")
    assert log.items() >= {
        "job_id": job_id, "sync_type": DISCOVER, "repository_id": repository_id,
        "status": "completed", "github_api_calls_used": 1, "metadata": run.result,
    }.items()  # fmt: skip


async def test_one_that_is_known_is_only_synced_again(
    found: Any, queue: Queue, query: Query
) -> None:
    await _discovered(queue)
    await query("UPDATE github.tracked_repositories SET priority = 'low' RETURNING 1")
    job_id, run = await _discovered(queue, owner="OCTO-ORG")
    assert [row["type"] for row in await queue.rows(_CHILDREN, job_id)] == [SYNC]
    assert (run.result["new"], list(run.result["jobs"])) == (False, [SYNC])
    (row,) = await query(_ROWS)
    assert row["priority"] == "low"


async def test_it_is_watched_as_one_tree(found: Any, github: GitHub, queue: Queue) -> None:
    github.stats_waits = 0
    job_id, run = await _discovered(queue)
    single = UUID(run.result["jobs"][SINGLE])
    assert single in await queue.claimed()
    [row] = await queue.rows("SELECT payload FROM background_jobs WHERE id = %s", single)
    classified = await run_handler(classify_repository, row["payload"], job_id=single)
    assert classified.result["size"] == "small"
    await queue.end(single)
    async with queue.database.connection() as connection:
        tree = await get_tree(connection, job_id)
    assert tree is not None
    assert {(job.type, job.depth, job.status) for job in tree.jobs} == {
        (DISCOVER, 0, "queued"), (SINGLE, 1, "completed"), (SYNC, 1, "queued")
    }  # fmt: skip
    assert tree.counts == {"completed": 1, "queued": 1}


async def test_a_retry_submits_nothing_twice(found: Any, queue: Queue) -> None:
    job_id, first = await _discovered(queue)
    again = await run_handler(discover_repository, PAYLOAD, job_id=job_id)
    assert again.result["jobs"][SYNC] == first.result["jobs"][SYNC]
    assert len(await queue.rows(_CHILDREN, job_id)) == 2


async def test_one_that_came_with_a_webhook_is_tracked_then(
    found: Any, queue: Queue, tables: GitHubTables, query: Query
) -> None:
    await tables.write(page(found))
    _, run = await _discovered(queue)
    assert run.result["new"] is True
    (row,) = await query(_ROWS)
    assert row["priority"] == "high"


async def test_rows_and_jobs_are_there_together_or_not_at_all(
    found: Any, queue: Queue, query: Query
) -> None:
    with pytest.raises(PermanentError, match="does not run"):
        await run_handler(discover_repository, PAYLOAD, job_id=new_id())
    assert await query(_ROWS) == []
    assert await queue.value("SELECT count(*) FROM background_jobs") == 0
