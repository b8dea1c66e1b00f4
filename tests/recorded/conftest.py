from collections.abc import AsyncIterator

import httpx
import pytest

from tests.recorded.running import RecordedApi, recorded_api


@pytest.fixture(scope="module")
async def recorded() -> AsyncIterator[RecordedApi]:
    async with recorded_api() as api:
        yield api


@pytest.fixture
async def github(recorded: RecordedApi) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the recorded API, which is as recorded."""
    recorded.github.reset()
    async with httpx.AsyncClient(base_url=recorded.url, timeout=50) as client:
        yield client
