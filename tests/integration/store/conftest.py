from collections.abc import AsyncIterator

import pytest

from hybridjobs.store.database import Database
from tests.conftest import DatabaseUrls


@pytest.fixture
async def database(database_urls: DatabaseUrls) -> AsyncIterator[Database]:
    async with Database(database_urls.service, size=8) as database:
        yield database
