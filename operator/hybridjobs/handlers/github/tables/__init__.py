"""The schema `github` as handlers write it: all of its SQL.

`pages` writes what GitHub tells, `captures` knows what of it is still to be captured and asks for
that, `repositories` has their states, `sync_logs` what was done, `queue` submits jobs.
docs/github-schema.md tells the tables.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

from hybridjobs.handlers.github.rows import Page
from hybridjobs.handlers.github.tables.captures import Captures
from hybridjobs.handlers.github.tables.pages import (
    Counts,
    UnknownRepositoryError,
    Written,
    write_page,
)
from hybridjobs.handlers.github.tables.queue import ChildJob, submit_jobs
from hybridjobs.handlers.github.tables.repositories import KnownRepository, Repositories
from hybridjobs.handlers.github.tables.sync_logs import SyncCounts, SyncLogs
from hybridjobs.sdk import PermanentError

__all__ = [
    "ChildJob",
    "Counts",
    "GitHubTables",
    "KnownRepository",
    "SyncCounts",
    "UnknownRepositoryError",
    "Written",
    "github_tables",
]

CONNECT_TIMEOUT_SECONDS = 5

PULL_REQUEST_ID = "SELECT id FROM github.pull_requests WHERE github_id = %s"


class GitHubTables:
    """The schema `github` over one connection, which one task uses at a time."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection
        self.repositories = Repositories(connection)
        self.captures = Captures(connection)
        self.sync_logs = SyncLogs(connection)

    @property
    def connection(self) -> AsyncConnection[Any]:
        """The job's one connection, in autocommit mode."""
        return self._connection

    async def submit(self, parent: UUID, jobs: Sequence[ChildJob]) -> list[UUID]:
        """Enqueue the jobs as children of `parent`; their ids. Within the caller's transaction."""
        return await submit_jobs(self._connection, parent, jobs)

    @asynccontextmanager
    async def writing(self, page: Page) -> AsyncIterator[Written]:
        """A transaction that has written the page, and commits with what follows in the block.

        One page a transaction: locks are taken in one order (`pages`).
        """
        async with self._connection.transaction():
            yield await write_page(self._connection, page)

    async def write(self, page: Page) -> Written:
        """Write a page in a transaction of its own."""
        async with self.writing(page) as written:
            return written

    async def pull_request_id(self, github_id: int) -> UUID:
        """Our id of a pull request that was written."""
        row = await (await self._connection.execute(PULL_REQUEST_ID, [github_id])).fetchone()
        assert row is not None
        found: UUID = row[0]
        return found


@asynccontextmanager
async def github_tables() -> AsyncIterator[GitHubTables]:
    """The tables at DATABASE_URL; PermanentError when it is not set."""
    url = os.environ.get("DATABASE_URL")
    if not url:
        raise PermanentError("DATABASE_URL is not set: the HybridJobType needs `database: true`")
    # No prepared statements: they do not survive a pooler's transactions.
    connection = await AsyncConnection.connect(
        url,
        autocommit=True,
        prepare_threshold=None,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        application_name="hybridjobs-github",
    )
    async with connection:
        yield GitHubTables(connection)
