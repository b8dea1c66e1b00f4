"""What administrators and applications call by SQL."""

import psycopg
import pytest

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


async def test_a_retry_by_hand_is_granted_beyond_the_limit(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(_ENDED)
        retry = "SELECT hybridjobs.retry_failed_job(id) AS did FROM hybridjobs.background_jobs"
        rows = await (await connection.execute(retry)).fetchall()
        assert sum(row["did"] for row in rows) == 1
        rows = await (await connection.execute(retry)).fetchall()
        assert sum(row["did"] for row in rows) == 0
