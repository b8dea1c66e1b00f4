"""GitHub as recorded, and a database as the handlers' role sees it."""

import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from hybridjobs.handlers.github.tables import GitHubTables, github_tables
from hybridjobs.store.database import Database
from tests.builders import job_type, new_job
from tests.conftest import DatabaseUrls
from tests.integration.store.scene import Queue
from tests.recorded.running import RecordedApi, recorded_api
from tests.recorded.server import GitHub

Query = Callable[..., Awaitable[list[dict[str, Any]]]]

# Those that handlers submit or are run as, and one of a test's own.
# From pyproject.toml: what is installed may be older.
PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
TYPES = {
    name: EntryPoint(name, value, "hybridjobs.handlers")
    for name, value in PROJECT["entry-points"]["hybridjobs.handlers"].items()
}
# Made up: for follow-ups of several parts.
DISCUSSION = "capture/pr.discussion"


@pytest.fixture(scope="module")
async def recorded() -> AsyncIterator[RecordedApi]:
    async with recorded_api() as api:
        yield api


@pytest.fixture
def github(
    recorded: RecordedApi, database_urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> GitHub:
    """What the handlers of this test talk to."""
    recorded.github.reset()
    monkeypatch.setenv("GITHUB_API_URL", recorded.url)
    monkeypatch.setenv("GITHUB_TOKEN", "token")
    monkeypatch.setenv("DATABASE_URL", database_urls.handlers)
    return recorded.github


@pytest.fixture
async def query(database_urls: DatabaseUrls) -> AsyncIterator[Query]:
    """Rows of a query, by the owner."""
    async with await psycopg.AsyncConnection.connect(
        database_urls.owner, autocommit=True, row_factory=dict_row
    ) as connection:

        async def query(statement: str, *parameters: object) -> list[dict[str, Any]]:
            return await (await connection.execute(statement.encode(), parameters)).fetchall()

        yield query


@pytest.fixture
async def tables(
    database_urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[GitHubTables]:
    """The tables as the handlers' role reaches them."""
    monkeypatch.setenv("DATABASE_URL", database_urls.handlers)
    async with github_tables() as tables:
        yield tables


@pytest.fixture
async def queue(database_urls: DatabaseUrls) -> AsyncIterator[Queue]:
    """A queue that knows every handler's type."""
    async with Database(database_urls.service, size=2) as database:
        queue = Queue(database)
        await queue.register(job_type(), *(job_type(each) for each in (*TYPES, DISCUSSION)))
        yield queue


@pytest.fixture
async def parent(queue: Queue) -> UUID:
    """A job that is being executed."""
    await queue.enqueue(new_job())
    (job_id,) = await queue.claimed()
    return job_id
