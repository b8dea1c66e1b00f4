"""The duties that any replica does for all."""

import asyncio
from datetime import timedelta

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.ingress.maintenance import maintain
from hybridjobs.store.database import Database
from hybridjobs.store.retention import Keep
from tests.conftest import DatabaseUrls
from tests.integration.store.history import ended_jobs


async def _begun_duties_are_done(connection: AsyncConnection[DictRow]) -> bool:
    cursor = await connection.execute(
        "SELECT EXISTS (SELECT FROM hybridjobs.job_rollups) "
        "AND NOT EXISTS (SELECT FROM hybridjobs.background_jobs "
        "                WHERE status IN ('processing', 'completed')) AS done"
    )
    [row] = await cursor.fetchall()
    return bool(row["done"])


async def test_each_duty_is_done(database_urls: DatabaseUrls) -> None:
    day = timedelta(days=1)
    async with (
        Database(database_urls.service, size=4) as database,
        database.connection() as connection,
    ):
        await ended_jobs(connection, ago=8 * day)
        await ended_jobs(connection, status="processing", outcome="lost", ago=day)
        maintaining = asyncio.create_task(maintain(database, Keep()))
        async with asyncio.timeout(20):
            while not await _begun_duties_are_done(connection):  # noqa: ASYNC110 - on Postgres
                await asyncio.sleep(0.05)
        assert not maintaining.done()
        maintaining.cancel()
        await asyncio.gather(maintaining, return_exceptions=True)
