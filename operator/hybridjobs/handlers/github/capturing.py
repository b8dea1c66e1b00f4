"""What every capture does beside its own work: connections, its log, its repository."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID

import psycopg
from pydantic import BaseModel

from hybridjobs.handlers.github.client import (
    GitHubClient,
    GoneError,
    LegalError,
    NotFoundError,
    Object,
    github_client,
)
from hybridjobs.handlers.github.payloads import RepositoryChoice
from hybridjobs.handlers.github.rows import page
from hybridjobs.handlers.github.tables import GitHubTables, SyncCounts, Written, github_tables
from hybridjobs.sdk import Context, PermanentError, RetryLater


class Tally(BaseModel):
    """Rows and requests of a job so far, over all its attempts: a part of its checkpoint."""

    processed: int = 0
    inserted: int = 0
    updated: int = 0
    failed: int = 0
    requests: int = 0

    def add(self, written: Written) -> None:
        """Count the rows of a page."""
        self.processed += written.total.given
        self.inserted += written.total.inserted
        self.updated += written.total.updated


@dataclass(slots=True)
class Capture:
    """One attempt of a capture.

    `owner`, `name`: where GitHub has the repository. `runs_in_queue`: it may have follow-ups.
    """

    tables: GitHubTables
    github: GitHubClient
    context: Context
    tally: Tally
    log_id: UUID
    earlier_requests: int
    owner: str = field(default="", init=False)
    name: str = field(default="", init=False)
    repository_id: UUID = field(default=UUID(int=0), init=False)
    github_id: int = field(default=0, init=False)
    runs_in_queue: bool = field(default=False, init=False)

    async def choose(self, payload: RepositoryChoice) -> None:
        """Find by what name GitHub is to be asked; PermanentError where the id is not stored."""
        if payload.repository_id is None:
            self.owner, self.name = str(payload.owner), str(payload.repo)
            return
        known = await self.tables.repositories.by_id(payload.repository_id)
        if known is None:
            raise PermanentError(
                f"no repository {payload.repository_id} is stored: name it by owner and repo"
            )
        self.owner, _, self.name = known.full_name.partition("/")
        self.github_id = known.github_id

    async def open(self, payload: RepositoryChoice) -> Object:
        """Ask GitHub for the repository, store it, and say in the queue that the job is about it.

        Renamed or transferred, it is found by the earlier name, until another takes that. Where
        GitHub has it no more, that is noted, and its error raised.
        """
        await self.choose(payload)
        repository = await self.ask()
        await self.store(repository)
        return repository

    async def ask(self) -> Object:
        """The repository as GitHub has it now; noted and raised where it is gone or blocked."""
        try:
            return await self.github.repository(self.owner, self.name)
        except (NotFoundError, GoneError, LegalError):
            known = await self.tables.repositories.by_name(f"{self.owner}/{self.name}")
            if known is not None:
                await self.tables.repositories.set_gone(known.id)
            raise

    async def store(self, repository: Object) -> None:
        """Write the repository's row, and go on by its present name."""
        await self.is_about((await self.write_checked(repository)).repository_id, repository)

    async def write_checked(self, repository: Object, *pull_requests: Object) -> Written:
        """Write a repository, and pull requests; PermanentError where it is not the one meant."""
        rows = page(repository, pull_requests)
        if self.github_id not in (0, rows.repository_github_id):
            raise PermanentError(
                f"{self.owner}/{self.name} is another repository by now; sync the one that had"
                " this name by its new one"
            )
        written = await self.tables.write(rows)
        self.tally.add(written)
        return written

    async def is_about(self, repository_id: UUID, repository: Object) -> None:
        """Note whose data the job brings in, here and in the queue."""
        if repository_id == self.repository_id:
            return
        self.repository_id, self.github_id = repository_id, repository["id"]
        self.owner, _, self.name = repository["full_name"].partition("/")
        self.runs_in_queue = await self.tables.captures.set_job_repository(
            self.context.job_id, repository_id
        )

    def counts(self) -> SyncCounts:
        """For the log; the tally's requests are brought up to date."""
        self.tally.requests = self.earlier_requests + self.github.requests_made
        tally = self.tally
        return SyncCounts(
            tally.processed,
            tally.inserted,
            tally.updated,
            tally.failed,
            tally.requests,
            self.github.remaining,
        )

    async def note_progress(self) -> None:
        """Put what was done into the log; within the page's transaction."""
        await self.tables.sync_logs.progress(self.log_id, self.counts())

    async def complete(self, result: dict[str, object]) -> dict[str, object]:
        """Close the log with the job's result, and return that."""
        await self.tables.sync_logs.complete(
            self.log_id, self.counts(), repository_id=self.repository_id, metadata=result
        )
        return result


@asynccontextmanager
async def capturing(context: Context, tally: Tally, *, retries: int = 3) -> AsyncIterator[Capture]:
    """Open the tables, the client and the job's log; a failure is put into that.

    A rate limit is none: the row stays `started`, and a later attempt goes on with it.
    """
    async with (
        github_tables() as tables,
        github_client(tables.connection, retries=retries) as github,
    ):
        log_id = await tables.sync_logs.start(context.job_id, context.type)
        job = Capture(tables, github, context, tally, log_id, tally.requests)
        try:
            yield job
        except RetryLater:
            raise
        except Exception as error:
            # What went wrong is told by the outcome too; a lost connection must not hide it.
            with suppress(psycopg.OperationalError):
                await tables.sync_logs.fail(log_id, job.counts(), str(error))
            raise
