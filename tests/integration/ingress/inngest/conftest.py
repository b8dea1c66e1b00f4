"""An ingress with Inngest, and the server that calls it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from psycopg.rows import DictRow

from hybridjobs.model import AttemptEnd, JobType, Outcome, Status
from hybridjobs.store.database import Database
from tests.builders import register
from tests.conftest import DatabaseUrls, free_port
from tests.integration.ingress.conftest import Running, running
from tests.integration.ingress.inngest.server import InngestServer, Run, inngest_server
from tests.integration.ingress.outcomes import end_all
from tests.waiting import eventually

KEY = "signkey-test-0123456789abcdef0123456789abcdef"
OLD_KEY = "signkey-test-fedcba9876543210fedcba9876543210"
EVENT_KEY = "the-event-key"
PATH = "/api/inngest"
RESULT = AttemptEnd(Outcome.SUCCEEDED, "Completed", result='{"rows":7}')

_JOB_OF_RUN = "SELECT id FROM hybridjobs.background_jobs WHERE inngest_run_id = %s"
_ENDS_LEFT = "SELECT FROM hybridjobs.inngest_endings LIMIT 1"


@dataclass
class Scene:
    """Both sides."""

    server: InngestServer
    ingress: Running
    settings: dict[str, Any]  # of the ingress

    async def job_id(self, run: Run) -> str:
        """The id of the run's job, once it is there."""
        row = await eventually(lambda: self._row(_JOB_OF_RUN, run.id))
        return str(row["id"])

    async def registered(self, *names: str) -> dict[str, Any]:
        """Wait until the server knows functions of these names; they by name."""

        def known() -> dict[str, Any] | None:
            if not self.server.registrations:
                return None
            found = {each["name"]: each for each in self.server.functions.values()}
            return found if set(names) <= set(found) else None

        found: dict[str, Any] = await eventually(known)
        return found

    async def reaches(self, job_id: str, status: Status) -> None:
        """Wait until the job has this status."""

        async def reached() -> bool:
            return (await self.ingress.job(job_id)).status is status

        await eventually(reached)

    async def settled(self) -> None:
        """Wait until no end is left to be sent: a run may know of its own before that."""

        async def none_left() -> bool:
            return await self._row(_ENDS_LEFT) is None

        await eventually(none_left)

    async def _row(self, statement: str, *parameters: object) -> DictRow | None:
        async with self.ingress.database.connection() as connection:
            return await (await connection.execute(statement.encode(), parameters)).fetchone()

    @asynccontextmanager
    async def ending(self, end: AttemptEnd = RESULT) -> AsyncIterator[None]:
        """Jobs end as soon as they are there."""

        async def work() -> None:
            while True:
                await end_all(self.ingress, end)
                await asyncio.sleep(0.002)

        task = asyncio.create_task(work())
        try:
            yield
        finally:
            task.cancel()


Start = Callable[..., Awaitable[Scene]]


@pytest.fixture
async def inngest(database_urls: DatabaseUrls) -> AsyncIterator[Start]:
    """Starts both sides with these types; changes are the ingress' settings'."""
    async with AsyncExitStack() as stack:

        async def start(
            *types: JobType,
            keys: tuple[str, ...] = (KEY,),
            database_url: str = database_urls.service,
            **changes: Any,
        ) -> Scene:
            async with (
                Database(database_url, size=1) as database,
                database.connection() as connection,
            ):
                await register(connection, *types)
            server = await stack.enter_async_context(inngest_server(*keys, event_key=EVENT_KEY))
            port = free_port()
            settings: dict[str, Any] = {
                "webhook_port": port,
                "inngest_signing_key": KEY,
                "inngest_event_key": EVENT_KEY,
                "inngest_api_url": server.origin,
                "inngest_event_url": server.origin,
                "inngest_serve_origin": f"http://127.0.0.1:{port}",
                "inline_children": 0,
                **changes,
            }
            ingress = running(database_url, **settings)
            return Scene(server, await stack.enter_async_context(ingress), settings)

        yield start
