"""A queue as tests handle it: what is put in, claimed and ended, and time that passes at will."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg

from hybridjobs.model import AttemptEnd, Claim, JobType, NewJob, Outcome, Status
from hybridjobs.store.claim import claim
from hybridjobs.store.database import Database
from hybridjobs.store.enqueue import insert_jobs
from hybridjobs.store.outcome import record_outcome
from tests.builders import register
from tests.waiting import eventually

# As if all that has happened had happened so much earlier.
_PASS_TIME = """
WITH jobs AS (
    UPDATE hybridjobs.background_jobs SET run_at = run_at - %(by)s, order_key = order_key - %(by)s
    WHERE status = 'queued'
), attempts AS (
    UPDATE hybridjobs.job_attempts
    SET claimed_at = claimed_at - %(by)s, started_at = started_at - %(by)s
), starts AS (
    UPDATE hybridjobs.throttle_starts SET started_at = started_at - %(by)s
)
UPDATE hybridjobs.parked_keys SET look_at = look_at - %(by)s
"""


@asynccontextmanager
async def held_open(url: str, *statements: str) -> AsyncIterator[None]:
    """A transaction of an application, or of a person, that has done this, and does not end."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        for statement in statements:
            await connection.execute(statement.encode())
        try:
            yield
        finally:
            await connection.rollback()


class Queue:
    """One database's queue; every call is a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def register(self, *types: JobType) -> None:
        async with self.database.connection() as connection:
            await register(connection, *types)

    async def enqueue(self, *jobs: NewJob) -> list[UUID]:
        """The ids of the rows that stand for the jobs."""
        async with self.database.connection() as connection:
            return [row.id for row in await insert_jobs(connection, jobs)]

    async def claim(self, *, window: int = 1000) -> list[Claim]:
        async with self.database.transaction() as connection:
            return await claim(connection, window=window)

    async def claimed(self, *, window: int = 1000) -> list[UUID]:
        """The jobs that a claim starts."""
        return [each.job_id for each in await self.claim(window=window)]

    async def end(
        self,
        job_id: UUID,
        outcome: Outcome = Outcome.SUCCEEDED,
        *,
        attempt: int | None = None,
        retry_after_seconds: float | None = None,
    ) -> Status:
        """End the job's attempt, by default its last; the job's status afterwards."""
        if attempt is None:
            attempt = await self.value("SELECT attempt FROM background_jobs WHERE id = %s", job_id)
        end = AttemptEnd(outcome, "Ended", retry_after_seconds=retry_after_seconds)
        async with self.database.transaction() as connection:
            recorded = await record_outcome(connection, job_id, attempt, end)
        assert recorded is not None
        return recorded.status

    async def end_all(self, outcome: Outcome = Outcome.SUCCEEDED) -> int:
        """End every open attempt; how many there were."""
        open_ = await self.rows("SELECT job_id, attempt FROM job_attempts WHERE ended_at IS NULL")
        for row in open_:
            await self.end(row["job_id"], outcome, attempt=row["attempt"])
        return len(open_)

    async def link(self) -> None:
        """What the next claim would do for dependencies."""
        await self.execute("SELECT link_dependencies()")

    async def pass_time(self, by: timedelta) -> None:
        async with self.database.connection() as connection:
            await connection.execute(_PASS_TIME, {"by": by})

    async def somebody_waits(self) -> None:
        """Until a statement in this database waits for another transaction."""
        waiting = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        await eventually(lambda: self.value(waiting))

    async def rows(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        async with self.database.transaction() as connection:
            await connection.execute("SET LOCAL search_path = hybridjobs")
            cursor = await connection.execute(statement.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

    async def execute(self, statement: str, *parameters: object) -> None:
        await self.rows(statement, *parameters)

    async def value(self, statement: str, *parameters: object) -> Any:
        [row] = await self.rows(statement, *parameters)
        [value] = row.values()
        return value

    async def job(self, job_id: UUID) -> dict[str, Any]:
        [row] = await self.rows("SELECT * FROM background_jobs WHERE id = %s", job_id)
        return row

    async def status(self, job_id: UUID) -> str:
        return str((await self.job(job_id))["status"])

    async def stages(self, ids: Sequence[UUID]) -> list[str | None]:
        rows = await self.rows("SELECT id, stage FROM background_jobs WHERE id = ANY(%s)", ids)
        by_id = {row["id"]: row["stage"] for row in rows}
        return [by_id[job_id] for job_id in ids]
