"""Through a real PgBouncer in transaction mode: many clients over a few connections to the server.

Debian 12's is 1.18, which knows nothing of prepared statements: what works there works everywhere.
"""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from hybridjobs.errors import DatabaseUnavailable
from hybridjobs.model import AttemptEnd, Outcome, Progress
from hybridjobs.store.database import Database, connect
from hybridjobs.store.embedded import EmbeddedPostgres
from hybridjobs.store.enqueue import Enqueuer
from hybridjobs.store.heartbeats import Heartbeats
from hybridjobs.store.migrate import migrate
from hybridjobs.store.outcome import Outcomes
from tests.builders import job_type, new_job
from tests.cluster.shell import need
from tests.conftest import DatabaseUrls, free_port
from tests.integration.store.scene import Queue
from tests.waiting import eventually

SERVER_CONNECTIONS = 3
SUCCEEDED = AttemptEnd(Outcome.SUCCEEDED, "Completed", result="1")
_SETTINGS = """
[databases]
* = host={host} port={server_port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 500
server_login_retry = 0.2
"""


class PgBouncer:
    """One of Debian's package, in front of `server`, run as a user that is not root."""

    def __init__(self, folder: Path, server: EmbeddedPostgres) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        settings = _SETTINGS.format(
            host=server.host,
            server_port=server.port,
            port=self.port,
            folder=folder,
            pool_size=SERVER_CONNECTIONS,
        )
        users = {"postgres": server.password, "service": "service", "jobs": "jobs"}
        (folder / "settings").write_text(settings)
        (folder / "users").write_text(
            "".join(f'"{name}" "{password}"\n' for name, password in users.items())
        )

    def start(self) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None
        with (self._folder / "log").open("ab") as output:
            self._process = subprocess.Popen(
                [program, str(self._folder / "settings")],
                stdout=output,
                stderr=output,
                user=pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None,
            )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(timeout=30)

    def url(self, direct: str) -> str:
        """The way through to what `direct` leads to."""
        return make_conninfo(direct, port=self.port)

    async def ready(self, url: str) -> None:
        async def answers() -> bool:
            try:
                await (await psycopg.AsyncConnection.connect(url)).close()
            except psycopg.OperationalError:
                return False
            return True

        try:
            await eventually(answers)
        except TimeoutError:
            pytest.fail((self._folder / "log").read_text())


@pytest.fixture(scope="module")
def pgbouncer(postgres: EmbeddedPostgres) -> Iterator[PgBouncer]:
    need({"pgbouncer": "pgbouncer"})
    folder = Path(tempfile.mkdtemp(prefix="hybridjobs-pgbouncer-"))
    folder.chmod(0o755)
    pgbouncer = PgBouncer(folder, postgres)
    pgbouncer.start()
    yield pgbouncer
    pgbouncer.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def urls(pgbouncer: PgBouncer, database_urls: DatabaseUrls) -> DatabaseUrls:
    """The test's database, through PgBouncer."""
    urls = DatabaseUrls(
        owner=pgbouncer.url(database_urls.owner),
        service=pgbouncer.url(database_urls.service),
        handlers=pgbouncer.url(database_urls.handlers),
    )
    await pgbouncer.ready(urls.service)
    return urls


class _Runs(Protocol):
    async def run(self) -> None: ...


@asynccontextmanager
async def _running(*services: _Runs) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(service.run()) for service in services]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_statements_are_prepared_unless_a_pooler_stands_between(
    urls: DatabaseUrls, database_urls: DatabaseUrls
) -> None:
    async with await connect(urls.service) as through, await connect(database_urls.service) as to:
        assert through.prepare_threshold is None
        assert to.prepare_threshold is not None
    for url, expected in ((urls.service, False), (database_urls.service, True)):
        async with Database(url, size=1) as database, database.connection() as connection:
            assert (connection.prepare_threshold is not None) is expected


@pytest.mark.timeout(180)
async def test_everything_goes_through_it(urls: DatabaseUrls, database_urls: DatabaseUrls) -> None:
    enqueuers = [Enqueuer(urls.service) for _ in range(8)]
    outcomes = [Outcomes(urls.service) for _ in range(8)]
    heartbeats = [Heartbeats(urls.service) for _ in range(8)]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(_running(*enqueuers, *outcomes, *heartbeats))
        databases = [
            await stack.enter_async_context(Database(urls.service, size=4)) for _ in range(8)
        ]
        queue = Queue(databases[0])
        await queue.register(
            job_type(concurrency={"limit": 5, "key": "k"}),
            job_type("test/free"),
            job_type("test/throttled", throttle={"limit": 1000, "periodSeconds": 60}),
        )
        busiest, clients_left = 0, 16

        async def client(number: int) -> None:
            nonlocal clients_left
            enqueuer = enqueuers[number % len(enqueuers)]
            for turn in range(20):
                first = new_job("test/free")
                [row, *_] = await enqueuer.enqueue(
                    [
                        first,
                        new_job(payload=f'{{"k": "{number % 4}"}}', key_path="k"),
                        new_job("test/throttled", depends_on=(first.id,)),
                    ]
                )
                assert row.created
                [same] = await enqueuer.enqueue([new_job(key=f"{turn}", unique_key=f"{turn}")])
                assert same.type == "test/long"
            clients_left -= 1

        async def run(number: int) -> None:
            database = databases[number]
            own = Queue(database)
            idle = 0
            while clients_left or idle < 40:
                claims = await own.claim(window=200)
                idle = 0 if claims else idle + 1

                async def work(job_id: Any, attempt: int) -> None:
                    beat = heartbeats[number].beat(job_id, attempt, Progress(1))
                    assert await beat is False
                    recorded = await outcomes[number].record(job_id, attempt, SUCCEEDED)
                    assert recorded is not None
                    assert recorded.changed

                await asyncio.gather(*(work(each.job_id, each.attempt) for each in claims))
                await asyncio.sleep(0.02)

        async def watch() -> None:
            nonlocal busiest
            statement = "SELECT count(*) AS n FROM pg_stat_activity WHERE usename = 'service'"
            async with await connect(database_urls.owner) as direct:
                while True:
                    [row] = await (await direct.execute(statement)).fetchall()
                    busiest = max(busiest, row["n"])
                    await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        await asyncio.gather(
            *(client(number) for number in range(clients_left)),
            *(run(number) for number in range(8)),
        )
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        rows = await queue.rows(
            "SELECT type, status, count(*) AS n, max(attempt) AS attempts FROM background_jobs "
            "GROUP BY type, status ORDER BY type"
        )
    assert [tuple(row.values()) for row in rows] == [
        ("test/free", "completed", 320, 1),
        ("test/long", "completed", 340, 1),
        ("test/throttled", "completed", 320, 1),
    ]
    assert busiest <= SERVER_CONNECTIONS


async def test_the_schema_is_brought_up_to_date_through_it(
    pgbouncer: PgBouncer, postgres: EmbeddedPostgres
) -> None:
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as server:
        await server.execute("CREATE DATABASE through_pgbouncer")
        url = pgbouncer.url(make_conninfo(postgres.url, dbname="through_pgbouncer"))
        assert await migrate(url, logins={})
        async with Database(url, size=1) as database:
            await database.check_schema()
        await server.execute("DROP DATABASE through_pgbouncer WITH (FORCE)")


@pytest.mark.timeout(120)
async def test_it_may_be_killed_and_come_back(
    pgbouncer: PgBouncer, urls: DatabaseUrls, database_urls: DatabaseUrls
) -> None:
    enqueuer = Enqueuer(urls.service)
    accepted: set[str] = set()
    refused = 0
    stopping = False

    async def client(number: int) -> None:
        nonlocal refused
        sent = 0
        while not stopping:
            sent += 1
            key = f"{number}-{sent}"
            try:
                await enqueuer.enqueue([new_job(key=key)])
            except DatabaseUnavailable:
                refused += 1
                await asyncio.sleep(0.05)
            else:
                accepted.add(key)

    async def progress() -> None:
        before = len(accepted)
        await eventually(lambda: len(accepted) >= before + 100)

    async with _running(enqueuer):
        clients = asyncio.gather(*(client(number) for number in range(16)))
        for _ in range(3):
            await progress()
            pgbouncer.stop(signal.SIGKILL)
            await asyncio.sleep(0.3)
            pgbouncer.start()
        await progress()
        stopping = True
        await clients
    assert refused
    async with Database(database_urls.service, size=1) as database:
        keys = await Queue(database).rows("SELECT key FROM background_jobs")
    assert accepted <= {row["key"] for row in keys}
