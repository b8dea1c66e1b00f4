"""What administrators and applications call by SQL: functions and views."""

import psycopg
import pytest
from psycopg.rows import tuple_row

from hybridjobs.store.database import Database
from tests.builders import job_type, register
from tests.conftest import DatabaseUrls

_ENDED = """
INSERT INTO hybridjobs.background_jobs
    (id, type, status, created_at, started_at, completed_at, failed_at)
SELECT hybridjobs.uuidv7_at(now()), 'test/long', status, now(), now() - interval '2 seconds',
       CASE WHEN status = 'completed' THEN now() END, CASE WHEN status = 'failed' THEN now() END
FROM unnest(ARRAY['completed', 'completed', 'completed', 'failed']) AS status
"""
# Two of the queries that users of the earlier system have in their notes, as they have them.
_PERFORMANCE = """
SELECT
  type,
  COUNT(*) as total,
  ROUND(AVG(duration_ms)/1000, 1) as avg_seconds,
  ROUND(100.0 * COUNT(*) FILTER (WHERE status = 'completed') / COUNT(*), 1) as success_rate
FROM background_jobs
WHERE created_at > NOW() - INTERVAL '24 hours'
GROUP BY type
ORDER BY total DESC;
"""
_STUCK = """
UPDATE background_jobs
SET status = 'failed',
    error = 'Job timeout - stuck in processing',
    failed_at = NOW()
WHERE status = 'processing'
  AND started_at < NOW() - INTERVAL '5 minutes';
"""


async def _summary(database: Database) -> dict[str, str]:
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT * FROM hybridjobs.get_job_statistics_summary()")
        return {row["metric"]: row["value"] for row in await cursor.fetchall()}


async def test_the_summary_of_an_empty_queue_has_no_nulls(database: Database) -> None:
    assert await _summary(database) == {
        "Total Jobs (24h)": "0",
        "Queued": "0",
        "Processing": "0",
        "Completed": "0",
        "Failed": "0",
        "Success Rate": "N/A",
        "Avg Duration": "N/A",
    }


async def test_the_success_rate_is_that_of_the_type(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(_ENDED)
        cursor = await connection.execute("SELECT * FROM hybridjobs.job_statistics")
        [row] = await cursor.fetchall()
    assert (row["type"], row["count"], row["success_rate"]) == ("test/long", 4, 75)
    assert row["median_duration_ms"] == 2000
    summary = await _summary(database)
    assert (summary["Success Rate"], summary["Avg Duration"]) == ("75.00%", "2.0s")


async def test_the_earlier_systems_queries_run_unchanged(database_urls: DatabaseUrls) -> None:
    async with await psycopg.AsyncConnection.connect(
        database_urls.owner, autocommit=True, row_factory=tuple_row
    ) as connection:
        await connection.execute("SET search_path = hybridjobs, public")
        await connection.execute(_ENDED.encode())
        [row] = await (await connection.execute(_PERFORMANCE)).fetchall()
        assert row == ("test/long", 4, 2, 75)
        await connection.execute(
            "INSERT INTO background_jobs (id, type, status, started_at) "
            "VALUES (uuidv7_at(now()), 't', 'processing', now() - interval '1 hour')"
        )
        assert (await connection.execute(_STUCK)).rowcount == 1


async def test_submit_job_is_part_of_the_callers_transaction(
    database: Database, database_urls: DatabaseUrls
) -> None:
    async with database.connection() as connection:
        await register(connection, job_type(retry={"limit": 7}, deadlineSeconds=60))
    submit = "SELECT hybridjobs.submit_job('test/long', '{\"n\": 1.0}', key => 'once')"
    async with await psycopg.AsyncConnection.connect(database_urls.handlers) as application:
        first = await (await application.execute(submit)).fetchone()
        await application.rollback()
        second = await (await application.execute(submit)).fetchone()
        await application.commit()
        third = await (await application.execute(submit)).fetchone()
    assert first != second == third
    async with database.connection() as connection:
        cursor = await connection.execute(
            "SELECT payload::text, max_retries, deadline_seconds, source, submitted_by "
            "FROM hybridjobs.background_jobs"
        )
        [row] = await cursor.fetchall()
    assert tuple(row.values()) == ('{"n": 1.0}', 7, 60, "sql", "jobs")


async def test_a_role_submits_only_what_it_may(
    database: Database, database_urls: DatabaseUrls
) -> None:
    async with database.connection() as connection:
        await register(connection, job_type(), job_type("test/other"))
        await connection.execute(
            "UPDATE hybridjobs.submit_grants SET type = 'test/other' "
            "WHERE role_name = 'hybridjobs_handlers'"
        )
    async with await psycopg.AsyncConnection.connect(
        database_urls.handlers, autocommit=True
    ) as application:
        await application.execute("SELECT hybridjobs.submit_job('test/other')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="may not submit"):
            await application.execute("SELECT hybridjobs.submit_job('test/long')")


async def test_rollups_hold_every_finished_minute_once(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(_ENDED)
        await connection.execute(
            "INSERT INTO hybridjobs.job_attempts (job_id, attempt, runner, deadline_seconds, "
            "claimed_at, started_at, ended_at, outcome) SELECT id, 1, 'pod', 60, "
            "now() - interval '1 hour', now() - interval '1 hour', "
            "now() - interval '1 hour' + interval '3 seconds', 'succeeded' "
            "FROM hybridjobs.background_jobs"
        )
        for expected in (1, 0):
            cursor = await connection.execute("SELECT hybridjobs.refresh_job_rollups() AS n")
            row = await cursor.fetchone()
            assert row == {"n": expected}
        cursor = await connection.execute("SELECT * FROM hybridjobs.job_rollups")
        [rollup] = await cursor.fetchall()
    assert (rollup["attempts"], rollup["duration_ms_sum"]) == (4, 12_000)


async def test_a_retry_by_hand_is_granted_beyond_the_limit(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(_ENDED)
        retry = "SELECT hybridjobs.retry_failed_job(id) AS did FROM hybridjobs.background_jobs"
        rows = await (await connection.execute(retry)).fetchall()
        assert sum(row["did"] for row in rows) == 1
        rows = await (await connection.execute(retry)).fetchall()
        assert sum(row["did"] for row in rows) == 0
