"""What every test shares: a real Postgres, and a fresh, migrated database for each test."""

import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg.conninfo import make_conninfo
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from hybridjobs.store.embedded import EmbeddedPostgres
from hybridjobs.store.migrate import migrate

CLUSTER = (
    "tests/e2e/",
    "tests/integration/access/",
    "tests/integration/controller/",
    "tests/integration/crds/",
    "tests/integration/dispatch/",
)

# How long an example takes says what else the machine does, and nothing of what is tested.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@dataclass(frozen=True)
class DatabaseUrls:
    """One database by its three users: the owner, the services, the handlers."""

    owner: str
    service: str
    handlers: str


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--postgres", type=int, default=18, help="embedded Postgres version: 18, 16")
    parser.addoption("--postgres-on-disk", action="store_true", help="more data than memory holds")


class _OneClusterScheduling(LoadScopeScheduling):
    """A file's tests stay together, as do all that use the cluster, of which there is one."""

    def _split_scope(self, nodeid: str) -> str:
        return "cluster" if nodeid.startswith(CLUSTER) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return _OneClusterScheduling(config, log)


def free_port(adjacent: int = 1) -> int:
    """The first of so many free ports, one after another.

    None that the system gives to outgoing connections, which may take it before it is listened on,
    and none of another of the tests' processes.
    """
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    lowest = 10_000 + 10_000 * (process % 2)
    while True:
        first = lowest + secrets.randbelow(10_000 - adjacent)
        with suppress(OSError), ExitStack() as listening:
            for port in range(first, first + adjacent):
                listening.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


def _memory() -> Path | None:
    """Where files are held in memory, if there is room: a new database for each test is 10 MB."""
    shared = Path("/dev/shm")
    enough = 4 << 30
    return shared if shared.is_dir() and shutil.disk_usage(shared).free > enough else None


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """The session's server; its durability is off, for speed."""
    parent = None if request.config.getoption("--postgres-on-disk") else _memory()
    folder = Path(tempfile.mkdtemp(prefix="hybridjobs-test-pg-", dir=parent))
    folder.chmod(0o755)
    server = EmbeddedPostgres(
        folder / "data",
        password=secrets.token_hex(8),
        port=free_port(),
        version=request.config.getoption("--postgres"),
        options={"fsync": "off", "synchronous_commit": "off", "max_connections": "200"},
    )
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
async def _template(postgres: EmbeddedPostgres) -> str:
    await _execute(postgres.url, "CREATE DATABASE template_hybridjobs")
    await migrate(
        make_conninfo(postgres.url, dbname="template_hybridjobs"),
        logins={
            make_conninfo(postgres.url, user="service", password="service"): "hybridjobs_service",
            make_conninfo(postgres.url, user="jobs", password="jobs"): "hybridjobs_handlers",
        },
    )
    return "template_hybridjobs"


@pytest.fixture
async def database_urls(postgres: EmbeddedPostgres, _template: str) -> AsyncIterator[DatabaseUrls]:
    """A migrated, empty database."""
    name = f"test_{secrets.token_hex(6)}"
    await _execute(postgres.url, f"CREATE DATABASE {name} TEMPLATE {_template}")
    yield DatabaseUrls(
        owner=make_conninfo(postgres.url, dbname=name),
        service=make_conninfo(postgres.url, dbname=name, user="service", password="service"),
        handlers=make_conninfo(postgres.url, dbname=name, user="jobs", password="jobs"),
    )
    await _execute(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(database_urls: DatabaseUrls) -> str:
    """The same database by its owner's URL."""
    return database_urls.owner


@asynccontextmanager
async def service_shut_out(owner_url: str) -> AsyncIterator[None]:
    """The service has no connections of the server meanwhile, and gets none."""
    limit = "ALTER ROLE service CONNECTION LIMIT {}"
    # In this order, else it is back at once.
    await _execute(owner_url, limit.format(0))
    try:
        await _execute(
            owner_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'service'",
        )
        yield
    finally:
        await _execute(owner_url, limit.format(-1))


async def _execute(url: str, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(statement.encode())
