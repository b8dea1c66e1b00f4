"""The queries of the earlier system's users, on this schema."""

from datetime import timedelta

import pytest
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from hybridjobs.ids import new_id
from tests.conftest import DatabaseUrls
from tests.integration.store.history import ended_jobs, rows_of, running_job

# What users of the earlier system may have in their notes and dashboards: queries for what its ten
# monitoring queries told, by the names it had, and those of its description as they stand there.
_EARLIER = {
    "queue status": """
        select status, count(*) from background_jobs
        where created_at > now() - interval '24 hours' group by status""",
    "failed in the last hour": """
        select id, type, error, created_at, failed_at, retry_count, payload
        from background_jobs
        where status = 'failed' and failed_at > now() - interval '1 hour'""",
    "times per type": """
        with week as (
            select type, status, case status when 'completed' then duration_ms end as ms
            from background_jobs where created_at > now() - interval '7 days'
        )
        select type, count(*) as total_jobs, sum((status = 'completed')::int) as successful,
               sum((status = 'failed')::int) as failed, round(avg(ms)), min(ms), max(ms),
               percentile_cont(array[0.5, 0.95]) within group (order by ms),
               100.0 * sum((status = 'completed')::int) / count(*) as success_rate
        from week group by type""",
    "running": """
        select id, type, extract(epoch from now() - started_at) as seconds_running, started_at,
               payload
        from background_jobs where status = 'processing' order by started_at""",
    "throughput per hour": """
        select date_trunc('hour', created_at) as hour, count(*) as total_jobs,
               sum((status = 'completed')::int) as completed,
               sum((status = 'failed')::int) as failed, avg(duration_ms) as avg_duration_ms
        from background_jobs where created_at > now() - interval '24 hours' group by 1""",
    "repository status": """
        select repositories.id, repositories.full_name, count(*) as total_jobs,
               max(background_jobs.created_at), max(background_jobs.completed_at)
        from background_jobs join repositories on repositories.id = repository_id
        where background_jobs.created_at > now() - interval '7 days'
        group by repositories.id, repositories.full_name""",
    "requiring retry": """
        select id, type, retry_count, max_retries, error, failed_at from background_jobs
        where status = 'failed' and retry_count < max_retries
          and failed_at > now() - interval '1 hour'""",
    "long-running": """
        select id, type, duration_ms / 1000.0 as duration_seconds, created_at, completed_at,
               payload
        from background_jobs
        where status = 'completed' and duration_ms > 60000
          and created_at > now() - interval '24 hours'""",
    "success trend": """
        select created_at::date as date, count(*) as total,
               sum((status = 'completed')::int) as successful,
               round(100.0 * sum((status = 'completed')::int) / count(*), 2) as success_rate
        from background_jobs where created_at > now() - interval '30 days' group by 1""",
    "event correlation": """
        select inngest_event_id, count(*) as job_count, array_agg(distinct type) as job_types,
               array_agg(distinct status) as statuses, min(created_at), max(created_at)
        from background_jobs
        where inngest_event_id is not null and created_at > now() - interval '24 hours'
        group by inngest_event_id having count(*) > 1""",
    "summary": "SELECT * FROM get_job_statistics_summary();",
    "recent failures": """
        SELECT * FROM background_jobs
        WHERE status = 'failed' AND created_at > NOW() - INTERVAL '1 hour';""",
    "statistics": "SELECT * FROM job_statistics;",
    "retry of recent failures": """
        SELECT retry_failed_job(id) FROM background_jobs
        WHERE status = 'failed' AND retry_count < max_retries
          AND failed_at > NOW() - INTERVAL '1 hour';""",
    "performance by type": """
        SELECT type, COUNT(*) as total, ROUND(AVG(duration_ms)/1000, 1) as avg_seconds,
               ROUND(100.0 * COUNT(*) FILTER (WHERE status = 'completed') / COUNT(*), 1)
                   as success_rate
        FROM background_jobs WHERE created_at > NOW() - INTERVAL '24 hours'
        GROUP BY type ORDER BY total DESC;""",
    "currently processing": """
        SELECT id, type, ROUND(EXTRACT(EPOCH FROM (NOW() - started_at))) as seconds_running
        FROM background_jobs WHERE status = 'processing' ORDER BY started_at;""",
}
_STUCK = """
UPDATE background_jobs
SET status = 'failed', error = 'Job timeout - stuck in processing', failed_at = NOW()
WHERE status = 'processing' AND started_at < NOW() - INTERVAL '5 minutes';
"""


@pytest.mark.parametrize("name", _EARLIER)
async def test_the_earlier_systems_queries_run_unchanged(
    database_urls: DatabaseUrls, name: str
) -> None:
    async with await AsyncConnection.connect(
        database_urls.owner, autocommit=True, row_factory=dict_row
    ) as connection:
        await connection.execute("SET search_path = hybridjobs, public")
        repository = new_id()
        await connection.execute(
            "INSERT INTO github.repositories (id, github_id, full_name, owner, name) "
            "VALUES (%s, 1, 'a/b', 'a', 'b')",
            [repository],
        )
        await ended_jobs(connection, 2, took=timedelta(minutes=2))
        await ended_jobs(connection, 2, status="failed")
        await running_job(connection)
        await connection.execute(
            "UPDATE background_jobs SET repository_id = %s, inngest_event_id = 'e'", [repository]
        )
        assert (await connection.execute(_EARLIER[name].encode())).rowcount > 0


async def test_a_stuck_job_that_is_failed_by_hand_is_failed(
    database_urls: DatabaseUrls, connection: AsyncConnection[DictRow]
) -> None:
    await running_job(connection)
    async with await AsyncConnection.connect(database_urls.owner, autocommit=True) as owner:
        await owner.execute("SET search_path = hybridjobs, public")
        assert (await owner.execute(_STUCK)).rowcount == 1
    [failed] = await rows_of(connection, "failed_last_hour")
    assert failed["error"] == "Job timeout - stuck in processing"
    assert await rows_of(connection, "running_now") == []
