"""Statistics and the views for monitoring: docs/monitoring.md."""

import re
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.rows import DictRow, tuple_row

from hybridjobs.ids import new_id
from hybridjobs.model import Status
from hybridjobs.store import statistics
from hybridjobs.store.statistics import HealthLimits
from tests.builders import job_type, register
from tests.conftest import DatabaseUrls
from tests.integration.store.history import ended_jobs, rows_of, running_job

_PAGE = Path(__file__).parents[3] / "docs" / "monitoring.md"
_VIEWS = (
    "queue_status",
    "failed_last_hour",
    "times_per_type",
    "running_now",
    "throughput_per_hour",
    "repository_status",
    "waiting_for_retry",
    "long_running_jobs",
    "success_trend",
    "duplicate_events",
    "stuck_jobs",
    "misplaced_types",
    "job_statistics",
    "get_job_statistics_summary()",
    "get_queue_health()",
)


async def test_jobs_in_line_are_counted_by_type(connection: AsyncConnection[DictRow]) -> None:
    assert await statistics.ready_by_type(connection) == []
    await register(connection, job_type(), job_type("test/other"))
    for type_, due, count in (
        ("test/long", "10 minutes", 1),
        ("test/long", "1 minute", 2),
        ("test/other", "-1 hour", 1),  # to come
        ("test/other", "5 seconds", 1),
    ):
        for _ in range(count):
            await connection.execute(
                "INSERT INTO hybridjobs.background_jobs (id, type, run_at)"
                " VALUES (%s, %s, now() - %s::interval)",
                [new_id(), type_, due],
            )
    lines = await statistics.ready_by_type(connection)
    assert [(each.type, each.jobs) for each in lines] == [("test/long", 3), ("test/other", 1)]
    assert [each.oldest_seconds // 60 for each in lines] == [10, 0]


async def _summary(connection: AsyncConnection[DictRow]) -> dict[str, str]:
    return {each.metric: each.value for each in await statistics.summary(connection)}


async def test_the_summary_of_an_empty_queue_has_no_nulls(
    connection: AsyncConnection[DictRow],
) -> None:
    assert await _summary(connection) == {
        "Total Jobs (24h)": "0",
        "Queued": "0",
        "Processing": "0",
        "Completed": "0",
        "Failed": "0",
        "Success Rate": "N/A",
        "Avg Duration": "N/A",
    }


async def test_the_success_rate_is_that_of_the_type(connection: AsyncConnection[DictRow]) -> None:
    await ended_jobs(connection, 3)
    await ended_jobs(connection, status="failed")
    await ended_jobs(connection, 3, status="cancelled")
    [row] = await rows_of(connection, "job_statistics")
    assert (row["type"], row["count"], row["success_rate"]) == ("test/long", 7, 75)
    assert row["median_duration_ms"] == 2000
    [times] = await statistics.type_statistics(connection)
    assert (times.total_jobs, times.successful, times.failed, times.cancelled) == (7, 3, 1, 3)
    assert (times.success_rate_percent, times.avg_duration_ms) == (75, 2000)
    summary = await _summary(connection)
    assert (summary["Success Rate"], summary["Avg Duration"]) == ("75.00%", "2.0s")


async def test_rates_have_their_decimals(connection: AsyncConnection[DictRow]) -> None:
    async with connection.transaction():  # at one time, else perhaps on two days
        await ended_jobs(connection, 17)
        await ended_jobs(connection, 2, status="failed")
    [row] = await statistics.type_statistics(connection)
    assert row.success_rate_percent == 89.47
    [today] = await rows_of(connection, "success_trend")
    assert float(today["success_rate"]) == 89.47
    health = await statistics.queue_health(connection)
    assert (health.status, health.failure_rate_percent) == ("degraded", 10.53)
    assert health.warnings == ["10.53 % of jobs fail"]


async def test_readers_and_services_may_read_every_view(database_urls: DatabaseUrls) -> None:
    async with await AsyncConnection.connect(
        database_urls.owner, autocommit=True, row_factory=tuple_row
    ) as connection:
        await connection.execute("CREATE ROLE somebody ROLE hybridjobs_reader")
        await connection.execute("SET ROLE somebody")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("SELECT * FROM hybridjobs.queue_status")
        for role in (b"hybridjobs_reader", b"hybridjobs_service"):
            await connection.execute(b"SET ROLE " + role)
            for view in _VIEWS:
                await connection.execute(f"SELECT * FROM hybridjobs.{view}".encode())
        await connection.execute("RESET ROLE")
        await connection.execute("DROP ROLE somebody")


async def test_every_query_of_the_page_on_monitoring_runs(database_urls: DatabaseUrls) -> None:
    page = _PAGE.read_text()
    queries = re.findall(r"```sql\n((?:SELECT|UPDATE).*?)```", page, re.DOTALL)
    alerts = re.findall(r"\| `(SELECT .*?)` \|", page)
    assert (len(queries), len(alerts)) == (17, 8)
    for view in _VIEWS:
        assert f"`{view}`" in page
    async with await AsyncConnection.connect(database_urls.owner, autocommit=True) as connection:
        await connection.execute("SET search_path = hybridjobs, public")
        for query in queries:
            await connection.execute(query.encode())
        for alert in alerts:
            assert await (await connection.execute(alert.encode())).fetchall() == [], alert


async def test_queue_status_says_what_jobs_wait_for(connection: AsyncConnection[DictRow]) -> None:
    await connection.execute(
        "INSERT INTO hybridjobs.background_jobs (id, type, run_at, attempt) "
        "SELECT hybridjobs.uuidv7_at(now()), 'test/long', run_at, 1 "
        "FROM unnest(ARRAY[now(), now(), now() + interval '1 hour']) AS run_at"
    )
    await running_job(connection)
    await ended_jobs(connection, 3)
    lines = {
        (line.status, line.stage): line.jobs for line in await statistics.queue_status(connection)
    }
    assert lines == {
        (Status.QUEUED, "ready"): 2,
        (Status.QUEUED, "scheduled"): 1,
        (Status.QUEUED, "parked"): 0,
        (Status.QUEUED, "blocked"): 0,
        (Status.QUEUED, "starting"): 0,
        (Status.PROCESSING, "running"): 1,
        (Status.COMPLETED, "24 hours"): 3,
        (Status.FAILED, "24 hours"): 0,
        (Status.CANCELLED, "24 hours"): 0,
    }
    [waiting] = await rows_of(connection, "waiting_for_retry")
    assert 3500 < waiting["seconds_to_retry"] <= 3600


async def test_stuck_jobs_say_in_what_way(connection: AsyncConnection[DictRow]) -> None:
    minutes = timedelta(minutes=1)
    await running_job(connection, ran=4 * minutes)
    await running_job(connection, silent=1 * minutes)
    stuck = {
        await running_job(connection): "NeverBeat",
        await running_job(connection, silent=6 * minutes): "StoppedBeating",
        await running_job(connection, silent=6 * minutes, deadline_seconds=60): "OverDeadline",
    }
    assert {job.id: job.reason for job in await statistics.stuck_jobs(connection)} == stuck
    running = await rows_of(connection, "running_now")
    assert len(running) == 5
    assert running[-1]["seconds_running"] == pytest.approx(240, abs=60)


async def test_duplicates_are_told_from_events_of_several_types(
    connection: AsyncConnection[DictRow],
) -> None:
    await ended_jobs(connection, 2)
    await ended_jobs(connection, type_="test/other")
    await connection.execute("UPDATE hybridjobs.background_jobs SET inngest_event_id = 'e'")
    [event] = await rows_of(connection, "duplicate_events")
    assert (event["job_count"], event["duplicates"]) == (3, 1)
    assert event["job_types"] == "test/long, test/other"


@pytest.mark.parametrize("key", ["repository.full_name", "repository.full_name | owner/repo | id"])
async def test_repositories_are_known_by_row_or_by_key(
    connection: AsyncConnection[DictRow], database_urls: DatabaseUrls, key: str
) -> None:
    by_name = {"limit": 1, "key": key}
    await register(connection, job_type("test/keyed", concurrency=by_name))
    repository = new_id()
    async with await AsyncConnection.connect(database_urls.owner, autocommit=True) as owner:
        await owner.execute(
            "INSERT INTO github.repositories (id, github_id, full_name, owner, name) "
            "VALUES (%s, 1, 'a/b', 'a', 'b')",
            [repository],
        )
    await ended_jobs(connection, 2, type_="test/keyed")
    await connection.execute("UPDATE hybridjobs.background_jobs SET concurrency_key = 'a/b'")
    [job_id] = await ended_jobs(connection, status="failed")
    await connection.execute(
        "UPDATE hybridjobs.background_jobs SET repository_id = %s WHERE id = %s",
        [repository, job_id],
    )
    # One that was named by its id alone.
    [job_id] = await ended_jobs(connection, type_="test/keyed")
    await connection.execute(
        "UPDATE hybridjobs.background_jobs SET concurrency_key = '7' WHERE id = %s", [job_id]
    )
    [row] = await rows_of(connection, "repository_status")
    assert (row["full_name"], row["repository_id"]) == ("a/b", repository)
    assert (row["total_jobs"], row["completed_jobs"], row["failed_jobs"]) == (3, 2, 1)


async def test_misplaced_types_are_pointed_out(connection: AsyncConnection[DictRow]) -> None:
    await register(
        connection,
        job_type("test/slow-quick", mode="quick", budgetSeconds=7),
        job_type("test/good-quick", mode="quick"),
        job_type("test/crowded-quick", mode="quick"),
        job_type("test/fast-long"),
        job_type("test/fast-image", image="registry.example/report:1"),
        job_type("test/rare-long"),
        job_type("test/good-long"),
    )
    over = {"status": "processing", "outcome": "over_budget", "runner": "inline"}
    await ended_jobs(connection, 18, type_="test/slow-quick", runner="inline")
    await ended_jobs(connection, 6, type_="test/slow-quick", **over)  # type: ignore[arg-type]
    await ended_jobs(connection, 30, type_="test/good-quick", runner="inline")
    await ended_jobs(connection, 30, type_="test/crowded-quick", runner="inline")
    await ended_jobs(
        connection,
        30,
        type_="test/crowded-quick",
        reason="NoFreeChild",
        **over,  # type: ignore[arg-type]
    )
    await ended_jobs(connection, 20, type_="test/fast-long")
    await ended_jobs(connection, 20, type_="test/fast-image")
    await ended_jobs(connection, 19, type_="test/rare-long")
    await ended_jobs(connection, 18, type_="test/good-long")
    await ended_jobs(connection, 2, type_="test/good-long", took=timedelta(minutes=1))
    fast, slow = await statistics.misplaced_types(connection)
    assert (slow.type, slow.better_mode, slow.runs) == ("test/slow-quick", "long", 24)
    assert (slow.over_budget_percent, slow.budget_seconds) == (25, 7)
    assert (fast.type, fast.better_mode, fast.runs) == ("test/fast-long", "quick", 20)
    assert fast.p95_seconds == pytest.approx(2, rel=0.2)


async def test_health_follows_from_the_figures(connection: AsyncConnection[DictRow]) -> None:
    health = await statistics.queue_health(connection)
    assert (health.status, health.warnings, health.errors) == ("healthy", [], [])
    assert (health.oldest_queued_seconds, health.failure_rate_percent) == (0, None)

    await ended_jobs(connection, 8)
    await ended_jobs(connection, 2, status="failed")
    health = await statistics.queue_health(connection)
    assert (health.status, health.failed_count) == ("degraded", 2)
    assert (health.avg_processing_seconds, health.failure_rate_percent) == (2, 20)
    assert health.warnings == ["20.00 % of jobs fail"]

    await connection.execute(
        "INSERT INTO hybridjobs.background_jobs (id, type, run_at, order_key) "
        "SELECT hybridjobs.uuidv7_at(now()), 'test/long', due, due "
        "FROM (SELECT now() - interval '2 hours' AS due FROM generate_series(1, 101)) AS job"
    )
    health = await statistics.queue_health(connection)
    assert (health.status, health.queue_depth) == ("unhealthy", 101)
    [waited] = health.errors
    assert re.fullmatch("a job has waited for 72[0-9]{2} s", waited)
    assert health.warnings == ["101 jobs wait", "20.00 % of jobs fail"]
    limits = HealthLimits(
        queued_degraded=200, oldest_unhealthy_seconds=10_000, failure_degraded_percent=25
    )
    assert (await statistics.queue_health(connection, limits)).status == "degraded"

    await register(connection, job_type())
    await connection.execute("SELECT hybridjobs.pause_type('test/long', 'somebody')")
    health = await statistics.queue_health(connection)
    assert (health.queue_depth, health.oldest_queued_seconds) == (0, 0)
    await connection.execute("SELECT hybridjobs.pause_queue('somebody')")
    health = await statistics.queue_health(connection)
    assert "the queue is paused by somebody" in health.warnings
