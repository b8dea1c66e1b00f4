"""The roll-ups: complete, and all that statistics over long ranges read."""

from datetime import timedelta

import pytest
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from hybridjobs.model import AttemptEnd, Outcome
from hybridjobs.store import statistics
from hybridjobs.store.database import Database
from hybridjobs.store.outcome import record_outcome
from hybridjobs.store.statistics import refresh_rollups
from tests.conftest import DatabaseUrls
from tests.integration.store.history import ended_jobs, rows_of, running_job


async def _read_so_far(connection: AsyncConnection[DictRow]) -> tuple[int, int]:
    """Sequential scans of the history's tables by this session, and rows fetched by index."""
    cursor = await connection.execute(
        "SELECT sum(seq_scan)::int AS scans, sum(idx_tup_fetch)::int AS fetched "
        "FROM pg_stat_xact_user_tables WHERE relname IN ('background_jobs', 'job_attempts')"
    )
    [row] = await cursor.fetchall()
    return row["scans"], row["fetched"]


async def test_rollups_hold_every_finished_minute_once(
    connection: AsyncConnection[DictRow],
) -> None:
    hour = timedelta(hours=1)
    await ended_jobs(connection, 4, took=timedelta(seconds=3), ago=hour)
    assert [await refresh_rollups(connection) for _ in range(2)] == [1, 0]
    [rollup] = await rows_of(connection, "job_rollups")
    assert (rollup["attempts"], rollup["duration_ms_sum"]) == (4, 12_000)
    [run_times] = await rows_of(connection, "job_run_times")
    assert run_times["runs"] == 4
    assert sum(row["jobs"] for row in await rows_of(connection, "job_arrivals")) == 4


@pytest.mark.parametrize("folded", [False, True])
async def test_figures_are_the_same_before_and_after_folding(
    connection: AsyncConnection[DictRow], folded: bool
) -> None:
    day = timedelta(days=1)
    async with connection.transaction():  # at one time, else perhaps on three days
        await ended_jobs(connection, 3, ago=day)
        await ended_jobs(connection, ago=day, status="failed")
        await ended_jobs(connection, 2, status="cancelled")
    if folded:
        await refresh_rollups(connection)
    today, yesterday = await rows_of(connection, "success_trend")
    assert (today["total"], today["cancelled"], today["success_rate"]) == (2, 2, None)
    assert (yesterday["total"], yesterday["success_rate"]) == (4, 75)


async def test_an_end_that_is_recorded_late_is_counted(
    database: Database, connection: AsyncConnection[DictRow]
) -> None:
    job_id = await running_job(connection, ran=timedelta(hours=3))
    await ended_jobs(connection, 2, ago=timedelta(hours=1))
    assert await refresh_rollups(connection) == 1
    cursor = await connection.execute("SELECT now() - interval '1 hour' AS ended_at")
    [row] = await cursor.fetchall()
    async with database.transaction() as other:
        end = AttemptEnd(Outcome.SUCCEEDED, "Completed", result="{}", ended_at=row["ended_at"])
        await record_outcome(other, job_id, 1, end)
    await refresh_rollups(connection)
    rollups = await rows_of(connection, "job_rollups")
    assert sum(rollup["attempts"] for rollup in rollups) == 3
    assert await rows_of(connection, "late_minutes") == []


async def test_an_end_by_hand_counts_whenever_that_is_committed(
    connection: AsyncConnection[DictRow],
) -> None:
    hour = timedelta(hours=1)
    await running_job(connection, ran=2 * hour)
    await ended_jobs(connection, ago=hour / 2)
    await refresh_rollups(connection)
    by_hand = "UPDATE hybridjobs.background_jobs SET status = 'failed' WHERE status = 'processing'"
    await connection.execute(by_hand.encode())
    # As if it were committed an hour after, when later minutes are in the roll-ups.
    earlier = (
        "UPDATE hybridjobs.job_attempts SET ended_at = ended_at - %s WHERE reason = 'SetByHand'"
    )
    await connection.execute(earlier.encode(), [hour])
    await connection.execute("UPDATE hybridjobs.late_minutes SET minute = minute - %s", [hour])
    await refresh_rollups(connection)
    assert sum(row["jobs_failed"] for row in await rows_of(connection, "job_rollups")) == 1


async def test_throughput_has_what_came_and_what_ended(
    connection: AsyncConnection[DictRow],
) -> None:
    async with connection.transaction():  # at one time, else perhaps in different hours
        await ended_jobs(connection, 48, apart=timedelta(hours=1), status="failed")
        await ended_jobs(connection, 48, apart=timedelta(hours=1))
    await refresh_rollups(connection)
    hours = await rows_of(connection, "throughput_per_hour")
    assert len(hours) in (23, 24)
    assert {(row["completed"], row["failed"]) for row in hours} == {(1, 1)}
    assert sum(row["total_jobs"] for row in hours) in range(2 * 23, 2 * 24 + 1)
    assert {row["avg_duration_ms"] for row in hours} == {2000}


async def test_percentiles_come_near_the_true_ones(connection: AsyncConnection[DictRow]) -> None:
    for seconds in range(1, 101):
        await ended_jobs(connection, took=timedelta(seconds=seconds), ago=timedelta(minutes=5))
    await refresh_rollups(connection)
    [times] = await statistics.type_statistics(connection)
    assert times.median_duration_ms == pytest.approx(50_000, rel=0.1)
    assert times.p95_duration_ms == pytest.approx(95_000, rel=0.1)
    assert times.max_duration_ms == 100_000


async def test_long_ranges_do_not_read_the_history(database_urls: DatabaseUrls) -> None:
    async with await AsyncConnection.connect(
        database_urls.owner, row_factory=dict_row
    ) as connection:
        apart = timedelta(days=30) / 50_000
        await ended_jobs(connection, 50_000, apart=apart, ago=timedelta(minutes=15))
        await refresh_rollups(connection)
        await connection.commit()
        await connection.execute("ANALYZE")
        await connection.execute("SET max_parallel_workers_per_gather = 0")
        await connection.commit()
        for view, most_rows in (
            ("success_trend", 100),
            ("throughput_per_hour", 100),
            ("times_per_type", 100),
            ("misplaced_types", 100),
            ("get_queue_health()", 100),
            ("queue_status", 100),
            ("get_job_statistics_summary()", 2000),
        ):
            scans, fetched = await _read_so_far(connection)
            await rows_of(connection, view)
            scans_after, fetched_after = await _read_so_far(connection)
            await connection.rollback()
            assert scans_after == scans, view
            assert fetched_after - fetched <= most_rows, view


async def test_the_summary_uses_the_index_of_creation(database_urls: DatabaseUrls) -> None:
    async with await AsyncConnection.connect(
        database_urls.owner, row_factory=dict_row
    ) as connection:
        await ended_jobs(connection, 50_000, apart=timedelta(days=30) / 50_000)
        await connection.execute("ANALYZE")
        cursor = await connection.execute(
            "EXPLAIN SELECT count(*) FILTER (WHERE status = 'failed') "
            "FROM hybridjobs.background_jobs WHERE created_at > now() - interval '24 hours'"
        )
        plan = "\n".join(row["QUERY PLAN"] for row in await cursor.fetchall())
    assert "background_jobs_created" in plan
    assert "Seq Scan" not in plan
