"""Pages of a long history: each is read by an index, and none sorts the whole."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from hybridjobs.ids import new_id
from hybridjobs.model import Status
from hybridjobs.store import batches, jobs
from hybridjobs.store.conditions import given_conditions
from hybridjobs.store.database import Database
from hybridjobs.store.jobs import JobFilter, list_jobs
from tests.integration.store.history import ended_jobs

COUNT = 20_000


@pytest.fixture
async def history(database: Database) -> Database:
    """Completed jobs, a minute apart, and a few that failed."""
    minute = timedelta(minutes=1)
    async with database.connection() as connection:
        await ended_jobs(connection, COUNT, apart=minute)
        await ended_jobs(connection, 5, status="failed", ago=timedelta(days=3), apart=minute)
        await connection.execute("ANALYZE hybridjobs.background_jobs")
    return database


async def _plan(database: Database, statement: str, parameters: Any) -> list[dict[str, Any]]:
    async with database.connection() as connection:
        explain = f"EXPLAIN (FORMAT JSON) {statement}".encode()
        [row] = await (await connection.execute(explain, parameters)).fetchall()
    return list(_nodes(row["QUERY PLAN"][0]["Plan"]))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


@pytest.mark.parametrize(
    ("values", "index"),
    [
        ({}, "background_jobs_pkey"),
        ({"before": new_id()}, "background_jobs_pkey"),
        ({"statuses": ["failed"]}, "background_jobs_failed"),
        ({"statuses": ["processing"]}, "background_jobs_processing"),
        ({"batch_id": new_id()}, "background_jobs_batch"),
        ({"parent_id": new_id()}, "background_jobs_parent"),
        ({"source": "api", "key": "k", "type": "test/long"}, "background_jobs_key"),
    ],
)
async def test_a_page_is_read_by_an_index(
    history: Database, values: dict[str, Any], index: str
) -> None:
    conditions, given = given_conditions(jobs._CONDITIONS, values)
    statement = jobs._LIST.format(conditions=conditions)
    plan = await _plan(history, statement, {**given, "limit": 50})
    assert index in {node.get("Index Name") for node in plan}, json.dumps(plan)
    assert "Seq Scan" not in {node["Node Type"] for node in plan}


async def test_a_batch_is_counted_by_its_index(history: Database) -> None:
    plan = await _plan(history, batches._COUNT, [[new_id()]])
    assert "background_jobs_batch" in {node.get("Index Name") for node in plan}


async def test_pages_together_are_the_whole(history: Database) -> None:
    seen = []
    which = JobFilter(statuses=(Status.FAILED, Status.CANCELLED))
    async with history.connection() as connection:
        while page := await list_jobs(connection, which, limit=2):
            seen += [job.id for job in page]
            which = JobFilter(statuses=which.statuses, before=page[-1].id)
    assert len(seen) == len(set(seen)) == 5
    assert seen == sorted(seen, reverse=True)
