"""A whole ingress in the test's process: real sockets, a real Postgres, real child processes."""

import asyncio
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest

from hybridjobs.ingress.app import Ingress, Ports
from hybridjobs.ingress.child import Child
from hybridjobs.ingress.tokens import KeySource
from hybridjobs.model import JobType
from hybridjobs.settings import IngressSettings
from hybridjobs.store.database import Database
from hybridjobs.store.embedded import EmbeddedPostgres
from hybridjobs.store.jobs import Job, get_job
from tests.builders import job_type, register
from tests.conftest import DatabaseUrls, free_port
from tests.integration.ingress.conformance import conforms

if TYPE_CHECKING:
    from hybridjobs.ingress.cluster import Cluster

SECRET = "old-webhook-secret"
ROTATED = "new-webhook-secret"
TOKEN = "the-api-token-of-tests"
HANDLERS = "tests.integration.ingress.handlers"


def quick_type(type_: str, **spec: Any) -> JobType:
    return job_type(type_, **{"mode": "quick", "budgetSeconds": 8, **spec})


def settings(database_url: str, **changes: Any) -> IngressSettings:
    values = {
        "database_url": database_url,
        "bind": "127.0.0.1",
        "webhook_port": 0,
        "api_port": 0,
        "worker_port": 0,
        "health_port": 0,
        "namespace": "jobs",
        "github_webhook_secret": f"{SECRET}, {ROTATED}",
        "api_token": TOKEN,
        "inline_children": 1,
    }
    return IngressSettings(**{**values, **changes})


@dataclass
class Running:
    """An ingress that runs, and clients of its listeners."""

    ports: Ports
    webhooks: httpx.AsyncClient
    api: httpx.AsyncClient
    workers: httpx.AsyncClient
    health: httpx.AsyncClient
    database: Database
    stop: asyncio.Event
    task: asyncio.Task[None]

    async def job(self, job_id: str | UUID) -> Job:
        async with self.database.connection() as connection:
            job = await get_job(connection, UUID(str(job_id)))
        assert job is not None
        return job

    async def register(self, *types: JobType) -> None:
        async with self.database.connection() as connection:
            await register(connection, *types)
        # Listing reads the table, rather than what the ingress knows of it for up to 5 s.
        listed = (await self.api.get("/api/types")).json()["types"]
        assert {each.spec.type for each in types} <= {each["type"] for each in listed}

    async def count(self) -> int:
        async with self.database.connection() as connection:
            cursor = await connection.execute(
                "SELECT count(*) AS n FROM hybridjobs.background_jobs"
            )
            row = await cursor.fetchone()
        assert row is not None
        return int(row["n"])

    async def submit(self, type_: str, payload: Any = None, **members: Any) -> httpx.Response:
        body = {"type": type_, "payload": {} if payload is None else payload, **members}
        return await self.api.post("/api/jobs", content=json.dumps(body))


async def refused_by_rate(ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """The refusal of a listener that lets one request a second through, and two at once."""
    began, let_through = time.monotonic(), 0
    while True:
        for answer in await asyncio.gather(ask(), ask()):
            if answer.status_code == 429:
                assert let_through >= 2
                assert answer.headers["retry-after"] == "1"
                return answer
            let_through += 1
            assert let_through <= 2 + time.monotonic() - began


@asynccontextmanager
async def running(
    database_url: str,
    *,
    keys: KeySource | None = None,
    cluster: "Cluster | None" = None,
    **changes: Any,
) -> AsyncIterator[Running]:
    """Start an ingress, and end it as SIGTERM would."""
    ingress = Ingress(settings(database_url, **changes), keys=keys, cluster=cluster)
    stop = asyncio.Event()
    task = asyncio.create_task(ingress.run(stop))
    futures: list[asyncio.Future[Any]] = [task, ingress.ports]
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    ports = ingress.ports.result()
    try:
        async with AsyncExitStack() as stack:
            webhooks, api, workers, health = [
                await stack.enter_async_context(
                    httpx.AsyncClient(
                        base_url=f"http://127.0.0.1:{port}",
                        timeout=30,
                        verify=False,  # there is no TLS here, and reading certificates takes 60 ms
                        headers={"Authorization": f"Bearer {TOKEN}"} if port == ports.api else {},
                        event_hooks={"response": [conforms] if port == ports.api else []},
                    )
                )
                for port in (ports.webhooks, ports.api, ports.workers, ports.health)
            ]
            database = await stack.enter_async_context(Database(database_url, size=4))
            yield Running(ports, webhooks, api, workers, health, database, stop, task)
    finally:
        # After its clients, whose kept connections it would wait for.
        stop.set()
        await task


@pytest.fixture
async def ingress(database_urls: DatabaseUrls) -> AsyncIterator[Running]:
    """An ingress without children: every job waits for a dispatcher."""
    async with running(database_urls.service, inline_children=0) as ingress:
        yield ingress


@pytest.fixture
def installed_handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers of this folder, as a package that the children see installed."""
    names = {
        name: f"{HANDLERS}:{name.partition('/')[2].replace('-', '_')}"
        for name in (
            "quick/echo",
            "quick/pid",
            "quick/waits",
            "quick/blocks",
            "quick/spins",
            "quick/hoards",
            "quick/exits",
            "quick/raises",
            "quick/refuses",
            "quick/later",
            "quick/large",
            "quick/nul",
            "quick/submits",
            "quick/forks",
            "quick/leaves",
            "quick/ends",
            "quick/hoards-elsewhere",
            "quick/haunts",
            "quick/chatters",
        )
    }
    package = tmp_path / "quick_handlers-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: quick-handlers\nVersion: 1\n")
    lines = [f"{name} = {value}" for name, value in names.items()]
    (package / "entry_points.txt").write_text("\n".join(["[hybridjobs.handlers]", *lines, ""]))
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{root}")


@pytest.fixture
async def quick_ingress(
    database_urls: DatabaseUrls, installed_handlers: None, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Any]]:
    """Starts an ingress with the given types and one warm child."""
    start_child = Child.start
    is_warm = asyncio.Event()

    async def noted(*arguments: Any) -> Child:
        child = await start_child(*arguments)
        is_warm.set()
        return child

    monkeypatch.setattr(Child, "start", noted)
    async with AsyncExitStack() as stack:

        async def start(*types: JobType, **changes: Any) -> Running:
            async with (
                Database(database_urls.service, size=1) as database,
                database.connection() as connection,
            ):
                await register(connection, *types)
            ingress = await stack.enter_async_context(running(database_urls.service, **changes))
            await is_warm.wait()
            return ingress

        yield start


@pytest.fixture
def durable_postgres() -> Iterator[EmbeddedPostgres]:
    """A server of its own, as durable as in production."""
    folder = Path(tempfile.mkdtemp(prefix="hybridjobs-chaos-"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder / "data", password=secrets.token_hex(8), port=free_port())
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)
