"""What both captures do beside their own work: connections, the log, and their repository."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

import psycopg
from pydantic import BaseModel

from hybridjobs.handlers.github.client import (
    GitHubClient,
    GoneError,
    GraphQLAnswer,
    LegalError,
    NotFoundError,
    Object,
    github_client,
)
from hybridjobs.handlers.github.graph import objects
from hybridjobs.handlers.github.payloads import RepositoryChoice
from hybridjobs.handlers.github.rows import MalformedAnswerError
from hybridjobs.handlers.github.tables import (
    GitHubTables,
    KnownRepository,
    SyncCounts,
    Written,
    github_tables,
)
from hybridjobs.sdk import Context, PermanentError, RetryLater

RETRIES = 3


class Tally(BaseModel):
    """Rows and queries of a job so far, over all its attempts: a part of its checkpoint."""

    processed: int = 0
    inserted: int = 0
    updated: int = 0
    queries: int = 0
    remaining: int | None = None

    def add(self, written: Written) -> None:
        """Count the rows of a page."""
        self.processed += written.total.given
        self.inserted += written.total.inserted
        self.updated += written.total.updated

    @property
    def counts(self) -> SyncCounts:
        """As the log has them."""
        return SyncCounts(
            self.processed,
            self.inserted,
            self.updated,
            calls_used=self.queries,
            remaining=self.remaining,
        )


@dataclass(slots=True)
class Capture:
    """One attempt. `known`: the repository as it is stored, if it is."""

    context: Context
    tables: GitHubTables
    github: GitHubClient
    tally: Tally
    log_id: UUID
    owner: str
    name: str
    known: KnownRepository | None
    is_queued: bool = False

    def repository(self, answer: GraphQLAnswer) -> Object:
        """What was asked for in the answer, which is counted.

        PermanentError where the name passed on to another repository than the one that is stored.
        """
        self.tally.queries += 1
        remaining = answer.rate_limit.get("remaining")
        self.tally.remaining = remaining if isinstance(remaining, int) else None
        found = answer.data.get("repository")
        if not isinstance(found, dict):
            raise MalformedAnswerError("GitHub's answer has no repository")
        if self.known is not None and found.get("databaseId") != self.known.github_id:
            raise PermanentError(
                f"{self.owner}/{self.name} is another repository than the one that is stored as"
                f" {self.known.id}: sync it by owner and repo"
            )
        return found

    async def is_about(self, repository_id: UUID, found: Object) -> None:
        """Say in the queue what the job is about, and go on by the repository's present name."""
        known = self.known
        if known is None or known.full_name != found["nameWithOwner"] or not self.is_queued:
            self.is_queued = await self.tables.captures.set_job_repository(
                self.context.job_id, repository_id
            )
            self.known = await self.tables.repositories.by_id(repository_id)
            self.owner, _, self.name = objects.repository(found)["full_name"].partition("/")

    async def complete(self, result: dict[str, object]) -> dict[str, object]:
        """Close the log with the job's result, and return that."""
        await self.tables.sync_logs.complete(
            self.log_id,
            self.tally.counts,
            repository_id=None if self.known is None else self.known.id,
            metadata=result,
        )
        return result


@asynccontextmanager
async def capturing(
    context: Context, payload: RepositoryChoice, tally: Tally
) -> AsyncIterator[Capture]:
    """Open the tables, the client and the job's log; a failure is put into that.

    A rate limit is none: the row stays `started`. Where GitHub has the repository no more, that is
    noted. PermanentError where `repositoryId` is not stored.
    """
    async with (
        github_tables() as tables,
        github_client(tables.connection, retries=RETRIES) as github,
    ):
        log_id = await tables.sync_logs.start(context.job_id, context.type)
        known = None
        try:
            known = await _known(tables, payload)
            full_name = known.full_name if known else f"{payload.owner}/{payload.repo}"
            owner, _, name = full_name.partition("/")
            # By name alone, whoever has the name now is meant.
            meant = known if payload.repository_id is not None else None
            yield Capture(context, tables, github, tally, log_id, owner, name, meant)
        except RetryLater:
            raise
        except Exception as error:
            # What went wrong is told by the outcome too; a lost connection must not hide it.
            with suppress(psycopg.OperationalError):
                if known is not None and isinstance(error, NotFoundError | GoneError | LegalError):
                    await tables.repositories.set_gone(known.id)
                await tables.sync_logs.fail(log_id, tally.counts, str(error))
            raise


async def _known(tables: GitHubTables, payload: RepositoryChoice) -> KnownRepository | None:
    if payload.repository_id is None:
        return await tables.repositories.by_name(f"{payload.owner}/{payload.repo}")
    known = await tables.repositories.by_id(payload.repository_id)
    if known is None:
        raise PermanentError(
            f"no repository {payload.repository_id} is stored: name it by owner and repo"
        )
    return known
