"""What every job does beside its own work: connections, its log, its repository."""

from collections.abc import AsyncIterator, Mapping
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
    PageSize,
    Sized,
    github_client,
)
from hybridjobs.handlers.github.payloads import RepositoryChoice
from hybridjobs.handlers.github.rows import MalformedAnswerError, page
from hybridjobs.handlers.github.tables import (
    GitHubTables,
    KnownRepository,
    SyncCounts,
    Written,
    github_tables,
)
from hybridjobs.sdk import Context, PermanentError, RetryLater

# Of requests that met trouble, but in a quick job: whoever waits for that is told at once.
RETRIES = 3


class Tally(BaseModel):
    """What a job did so far, over all its attempts: a part of its checkpoint.

    A later attempt goes on with `repository_id`, whatever has its name by then.
    """

    repository_id: UUID | None = None
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
    """One attempt of a job.

    `owner`, `name`: where GitHub has the repository, `repository`: as it was told last.
    `github_id`: of the one meant; None until that is known. `runs_in_queue`: it may have
    follow-ups.
    """

    tables: GitHubTables
    github: GitHubClient
    context: Context
    tally: Tally
    log_id: UUID
    earlier_requests: int
    owner: str = field(default="", init=False)
    name: str = field(default="", init=False)
    repository: Object = field(default_factory=dict, init=False)
    github_id: int | None = field(default=None, init=False)
    runs_in_queue: bool = field(default=False, init=False)

    @property
    def full_name(self) -> str:
        """The name that GitHub is asked by."""
        return f"{self.owner}/{self.name}"

    @property
    def repository_id(self) -> UUID:
        """Our id of the one meant, once that is known."""
        assert self.tally.repository_id is not None
        return self.tally.repository_id

    async def choose(self, payload: RepositoryChoice) -> None:
        """Find by what name GitHub is to be asked; PermanentError where the id is not stored."""
        repository_id = payload.repository_id or self.tally.repository_id
        if repository_id is None:
            self.owner, self.name = str(payload.owner), str(payload.repo)
            return
        known = await self.tables.repositories.by_id(repository_id)
        if known is None:
            raise PermanentError(
                f"no repository {repository_id} is stored: discover it, or name it by owner and"
                " repo"
            )
        await self.is_about(known.id, known.github_id, known.full_name)

    async def known(self) -> KnownRepository | None:
        """The repository as it is stored: the one meant, or whoever had the name last."""
        if self.tally.repository_id is not None:
            return await self.tables.repositories.by_id(self.tally.repository_id)
        return await self.tables.repositories.by_name(self.full_name)

    async def open(self, payload: RepositoryChoice) -> Object:
        """Ask GitHub for the repository, store it, and say in the queue that the job is about it.

        Renamed or transferred, it is found by the earlier name, until another takes that. Where
        GitHub has it no more, that is noted, and its error raised.
        """
        await self.choose(payload)
        await self.store(await self.ask())
        return self.repository

    async def ask(self) -> Object:
        """The repository as GitHub has it now; noted and raised where it is gone or blocked."""
        async with self._noting_absence():
            return await self.github.repository(self.owner, self.name)

    async def query(self, made: Sized, size: PageSize) -> Object:
        """What GraphQL says of the repository, in its form; errors as those of `ask` and `store`.

        `made` gives the document, and its variables but `owner` and `name`.
        """

        def named(value: int) -> tuple[str, Mapping[str, object]]:
            document, variables = made(value)
            return document, {"owner": self.owner, "name": self.name, **variables}

        async with self._noting_absence():
            answer = await self.github.query_sized(self.owner, self.name, named, size)
        found = answer.data.get("repository")
        if not isinstance(found, dict):
            raise MalformedAnswerError("GitHub's answer has no repository")
        await self._check(found.get("databaseId"))
        return found

    async def store(self, repository: Object, *pull_requests: Object) -> Written:
        """Write the repository, with pull requests, and go on by its present name.

        PermanentError where it is not the one meant.
        """
        rows = page(repository, pull_requests)
        await self._check(rows.repository_github_id)
        written = await self.tables.write(rows)
        self.tally.add(written)
        self.repository = repository
        await self.is_about(written.repository_id, repository["id"], repository["full_name"])
        return written

    async def is_about(self, repository_id: UUID, github_id: int, full_name: str) -> None:
        """Note whose data the job brings in, here and in the queue."""
        self.owner, _, self.name = full_name.partition("/")
        if self.github_id is not None and repository_id == self.tally.repository_id:
            return
        self.tally.repository_id, self.github_id = repository_id, github_id
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
            self.log_id, self.counts(), repository_id=self.tally.repository_id, metadata=result
        )
        return result

    def names(self) -> dict[str, object]:
        """Which repository it was: the beginning of a result."""
        return {
            "repositoryId": str(self.repository_id),
            "githubId": self.github_id,
            "fullName": self.full_name,
        }

    async def _check(self, github_id: object) -> None:
        """PermanentError, and noted, where the name has passed on to another repository."""
        if self.github_id in (None, github_id):
            return
        await self.tables.repositories.set_gone(self.repository_id)
        raise PermanentError(
            f"{self.full_name} is another repository by now; name the one that had this name by"
            " its new one"
        )

    @asynccontextmanager
    async def _noting_absence(self) -> AsyncIterator[None]:
        try:
            yield
        except (NotFoundError, GoneError, LegalError):
            if (known := await self.known()) is not None:
                await self.tables.repositories.set_gone(known.id)
            raise


@asynccontextmanager
async def capturing(
    context: Context, tally: Tally, *, is_quick: bool = False
) -> AsyncIterator[Capture]:
    """Open the tables, the client and the job's log; a failure is put into that.

    A rate limit is none: the row stays `started`, and a later attempt goes on with it.
    """
    async with (
        github_tables() as tables,
        github_client(tables.connection, retries=0 if is_quick else RETRIES) as github,
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
                await tables.sync_logs.fail(
                    log_id, job.counts(), str(error), repository_id=tally.repository_id
                )
            raise
