"""A queue whose jobs call back, and what delivers it."""

import asyncio
import ssl
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from hybridjobs.callbacks.deliverer import MAX_SENDS, Deliverer
from hybridjobs.callbacks.network import Resolve, Resolver
from hybridjobs.callbacks.secrets import Secrets
from hybridjobs.callbacks.sender import Sender
from hybridjobs.callbacks.targets import Targets
from hybridjobs.model import Callback
from hybridjobs.store.database import Database
from tests.builders import job_type, new_job
from tests.conftest import DatabaseUrls
from tests.integration.store.scene import Queue
from tests.waiting import eventually

SECRET = "whsec_" + b64encode(b"a secret of thirty-two bytes ...").decode()
OTHER = "whsec_" + b64encode(b"another one of thirty-two bytes.").decode()
LOOPBACK = "127.0.0.0/8"


class Calls(Queue):
    """A queue, and the callbacks of its jobs."""

    async def ended(self, url: str, **fields: Any) -> UUID:
        """A job that has just completed, and is about to tell it to the URL."""
        [job_id] = await self.enqueue(new_job(callbacks=(Callback(url=url),), **fields))
        await self.complete(job_id)
        return job_id

    async def complete(self, job_id: UUID, result: str = "null") -> None:
        await self.execute(
            "UPDATE background_jobs SET status = 'completed', result = %s WHERE id = %s",
            result,
            job_id,
        )

    async def delivery(self, job_id: UUID) -> dict[str, Any]:
        [row] = await self.rows("SELECT * FROM callback_deliveries WHERE job_id = %s", job_id)
        return row

    async def until(self, job_id: UUID, condition: Callable[[dict[str, Any]], bool]) -> Any:
        """The job's delivery when the condition holds for it."""

        async def found() -> dict[str, Any] | None:
            row = await self.delivery(job_id)
            return row if condition(row) else None

        return await eventually(found)

    async def tried(self, job_id: UUID, failures: int = 1) -> Any:
        """The delivery after so many failures."""
        return await self.until(job_id, lambda row: row["failures"] >= failures)

    async def in_status(self, job_id: UUID, status: str) -> Any:
        return await self.until(job_id, lambda row: bool(row["status"] == status))

    async def until_under_way(self, count: int) -> None:
        """Until so many deliveries are being tried."""
        leased = "SELECT id FROM callback_deliveries WHERE lease_until > now()"

        async def are_leased() -> bool:
            return len(await self.rows(leased)) >= count

        await eventually(are_leased)

    async def end_lease(self) -> None:
        """As if who had claimed a delivery had been silent for long enough."""
        await self.execute(
            "UPDATE callback_deliveries SET lease_until = now(), next_at = now() "
            "WHERE lease_until IS NOT NULL"
        )

    async def make_due(self) -> None:
        """As if the wait for the next try were over."""
        await self.execute(
            "UPDATE callback_deliveries SET next_at = now() WHERE lease_until IS NULL"
        )


@pytest.fixture
async def calls(database_urls: DatabaseUrls) -> AsyncIterator[Calls]:
    async with Database(database_urls.service, size=4) as database:
        calls = Calls(database)
        await calls.register(job_type())
        yield calls


@pytest.fixture
def secrets_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "default").write_text(SECRET)
    return folder


Delivering = Callable[..., Any]


@pytest.fixture
def delivering(database_urls: DatabaseUrls, secrets_folder: Path) -> Delivering:
    """Runs a deliverer; what it tells of its tries is counted."""

    @asynccontextmanager
    async def run(
        *,
        allow: str = LOOPBACK,
        resolve: Resolve | None = None,
        try_seconds: float = 5.0,
        tls: ssl.SSLContext | None = None,
        lease: timedelta = timedelta(seconds=60),
    ) -> AsyncIterator[Counter[str]]:
        results: Counter[str] = Counter()
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(Database(database_urls.service, size=2))
            resolver = Resolver()
            stack.callback(resolver.close)
            sender = Sender(
                Targets.parse(allow),
                Secrets(str(secrets_folder)),
                resolve or resolver,
                connections=MAX_SENDS,
                try_seconds=try_seconds,
                tls=tls,
            )
            stack.push_async_callback(sender.close)
            deliverer = Deliverer(
                database, sender, tried=lambda result, _: results.update([result]), lease=lease
            )
            task = asyncio.create_task(deliverer.run())
            try:
                yield results
            finally:
                assert not task.done()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    return run
