from collections.abc import AsyncIterator

import pytest
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.store.database import Database
from tests.conftest import DatabaseUrls


@pytest.fixture
async def database(database_urls: DatabaseUrls) -> AsyncIterator[Database]:
    async with Database(database_urls.service, size=8) as database:
        yield database


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[AsyncConnection[DictRow]]:
    async with database.connection() as connection:
        yield connection
