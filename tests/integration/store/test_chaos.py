"""The database killed, cut off, full and quarrelling: nothing acknowledged is lost or doubled.

And whatever it was, work goes on without a restart of ours when it is over.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from hybridjobs.errors import ConfigurationError, DatabaseUnavailable
from hybridjobs.ids import new_id
from hybridjobs.model import AttemptEnd, Outcome, Status
from hybridjobs.store import outcome
from hybridjobs.store.database import Database
from hybridjobs.store.embedded import EmbeddedPostgres
from hybridjobs.store.enqueue import Enqueuer
from hybridjobs.store.migrate import migrate
from hybridjobs.store.outcome import Outcomes
from tests.builders import job_type, new_job
from tests.conftest import DatabaseUrls, free_port
from tests.integration.store.scene import Queue
from tests.waiting import eventually

SUCCEEDED = AttemptEnd(Outcome.SUCCEEDED, "Completed", result="1")


class Load:
    """Clients that enqueue jobs and end them, each until it is acknowledged, as senders do."""

    def __init__(self, url: str, *, payload: str = "{}") -> None:
        self._enqueuer, self._outcomes = Enqueuer(url), Outcomes(url)
        self._payload = payload
        self._stopping = False
        self.enqueued: dict[str, UUID] = {}
        self.ended: set[UUID] = set()
        self.refused = 0

    @asynccontextmanager
    async def running(self, clients: int) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            services = [
                tasks.create_task(service.run()) for service in (self._enqueuer, self._outcomes)
            ]
            own = [tasks.create_task(self._client(number)) for number in range(clients)]
            yield
            self._stopping = True
            await asyncio.wait(own)
            for service in services:
                service.cancel()

    async def _client(self, number: int) -> None:
        sent = 0
        while not self._stopping:
            sent += 1
            key = f"{number}-{sent}"
            job_id = await self._enqueue(key)
            if job_id is None:
                return
            self.enqueued[key] = job_id
            await self._end(job_id)

    async def _enqueue(self, key: str) -> UUID | None:
        while True:
            try:
                job = new_job(key=key, payload=self._payload, lease_seconds=600.0)
                [row] = await self._enqueuer.enqueue([job])
            except DatabaseUnavailable:
                self.refused += 1
                if self._stopping:
                    return None
                await asyncio.sleep(0.05)
            else:
                return row.id

    async def _end(self, job_id: UUID) -> None:
        while True:
            try:
                recorded = await self._outcomes.record(job_id, 1, SUCCEEDED)
            except DatabaseUnavailable:
                self.refused += 1
                if self._stopping:
                    return
                await asyncio.sleep(0.05)
            else:
                assert recorded is not None
                assert recorded.status is Status.COMPLETED
                self.ended.add(job_id)
                return

    async def progress(self, jobs: int = 200) -> None:
        """Wait until so many more have been enqueued and ended."""
        before = len(self.ended)
        await eventually(lambda: len(self.ended) >= before + jobs, seconds=60)

    async def trouble(self) -> None:
        """Wait until something more is refused."""
        before = self.refused
        await eventually(lambda: self.refused > before)

    async def verify(self, queue: Queue) -> None:
        """Every acknowledged job is there, ended where that was acknowledged, and none is twice."""
        rows = await queue.rows(
            "SELECT id, key, status, attempt, (SELECT count(*) FROM job_attempts a "
            "WHERE a.job_id = j.id) AS attempts FROM background_jobs j WHERE key IS NOT NULL"
        )
        by_key = {row["key"]: row for row in rows}
        assert max(Counter(row["key"] for row in rows).values()) == 1
        for key, job_id in self.enqueued.items():
            assert by_key[key]["id"] == job_id
        for row in by_key.values():
            assert (row["attempt"], row["attempts"]) == (1, 1)
            assert row["id"] not in self.ended or row["status"] == "completed"


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hybridjobs-chaos-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def server(folder: Path, request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    """A server of the test's own, as durable as in production; not yet started."""
    server = EmbeddedPostgres(
        folder / "data",
        password=secrets.token_hex(8),
        port=free_port(),
        version=request.config.getoption("--postgres"),
        options={"max_wal_size": "48MB", "min_wal_size": "32MB"},
    )
    yield server
    server.stop()


async def _restarted(server: EmbeddedPostgres) -> None:
    """Up again. The killed one's children may still hold its shared memory for a moment."""
    for _ in range(20):
        with contextlib.suppress(ConfigurationError):
            await asyncio.to_thread(server.start)
            return
        await asyncio.sleep(0.25)
    pytest.fail("the server does not come back")


@pytest.mark.timeout(180)
async def test_the_server_is_killed_with_200_enqueues_and_outcomes_in_flight(
    server: EmbeddedPostgres,
) -> None:
    server.start()
    await migrate(server.url, logins={})
    load = Load(server.url)
    async with Database(server.url, size=2) as database:
        queue = Queue(database)
        async with load.running(clients=200):
            for _ in range(3):
                await load.progress()
                await asyncio.to_thread(server.stop, signal.SIGKILL)
                await load.trouble()
                await _restarted(server)
            await load.progress()
        await load.verify(queue)


@pytest.mark.timeout(120)
async def test_every_connection_is_cut_again_and_again(database_urls: DatabaseUrls) -> None:
    load = Load(database_urls.service)
    cuts = 0
    async with (
        Database(database_urls.service, size=2) as database,
        await psycopg.AsyncConnection.connect(database_urls.owner, autocommit=True) as owner,
    ):
        async with load.running(clients=50):
            while cuts < 40:
                cursor = await owner.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE usename = 'service' AND datname = current_database()"
                )
                row = await cursor.fetchone()
                assert row is not None
                cuts += row[0] > 0
                await asyncio.sleep(0.05)
            await load.progress()
        await load.verify(Queue(database))


# Each statement that sets off the trigger fails the first time, and every other time after.
_TROUBLE = """
CREATE SEQUENCE hybridjobs.trouble;
GRANT USAGE, SELECT ON hybridjobs.trouble TO PUBLIC;
CREATE FUNCTION hybridjobs.make_trouble() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('hybridjobs.trouble') % 2 = 1 THEN
        RAISE EXCEPTION 'trouble' USING ERRCODE = TG_ARGV[0];
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER make_trouble AFTER INSERT ON hybridjobs.background_jobs
    FOR EACH STATEMENT EXECUTE FUNCTION hybridjobs.make_trouble('{code}');
CREATE TRIGGER make_trouble AFTER UPDATE ON hybridjobs.job_attempts
    FOR EACH STATEMENT EXECUTE FUNCTION hybridjobs.make_trouble('{code}')
"""


@pytest.mark.parametrize("code", ["serialization_failure", "deadlock_detected"])
async def test_what_the_server_asks_to_try_again_is_tried_again(
    database_urls: DatabaseUrls, code: str
) -> None:
    async with await psycopg.AsyncConnection.connect(database_urls.owner, autocommit=True) as owner:
        await owner.execute(_TROUBLE.format(code=code).encode())
    enqueuer, outcomes = Enqueuer(database_urls.service), Outcomes(database_urls.service)
    services = [asyncio.create_task(service.run()) for service in (enqueuer, outcomes)]
    # One after the other: at once, two batches would share the every-other-time between them.
    for _ in range(5):
        [row] = await enqueuer.enqueue([new_job(lease_seconds=600.0)])
        recorded = await outcomes.record(row.id, 1, SUCCEEDED)
        assert recorded is not None
        assert recorded.changed
    for service in services:
        service.cancel()
    async with Database(database_urls.service, size=1) as database:
        queue = Queue(database)
        assert await queue.value("SELECT last_value FROM trouble") == 20
        assert await queue.rows("SELECT DISTINCT status FROM background_jobs") == [
            {"status": "completed"}
        ]


async def test_two_that_lock_in_opposite_orders_both_get_through(
    database_urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person's transaction and a batch of outcomes; the server gives up the batch's."""
    # Else it would not wait for as long as it takes the server to find out.
    patient = outcome._END_AND_FINISH.replace("'1s'", "'60s'")
    monkeypatch.setattr(outcome, "_END_AND_FINISH", patient)
    first, second = sorted((new_id(), new_id()))
    async with (
        Database(database_urls.service, size=1) as database,
        await psycopg.AsyncConnection.connect(database_urls.owner) as person,
    ):
        await person.execute(
            "SELECT set_config('deadlock_timeout', '60s', false), "
            "set_config('application_name', 'person', false)"
        )
        await person.commit()
        name = person.info.dbname
        await person.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '2s'".encode())
        await person.commit()
        await Queue(database).enqueue(
            *(new_job(id=job_id, lease_seconds=600.0) for job_id in (first, second))
        )
        outcomes = Outcomes(database_urls.service)
        task = asyncio.create_task(outcomes.run())
        lock = "SELECT FROM hybridjobs.background_jobs WHERE id = %s FOR UPDATE"
        await person.execute(lock, [second])
        ends = asyncio.gather(*(outcomes.record(each, 1, SUCCEEDED) for each in (first, second)))
        # It holds the first and waits for the second; we hold the second and wait for the first.
        await Queue(database).somebody_waits()
        await person.execute(lock, [first])
        await person.commit()
        for recorded in await ends:
            assert recorded is not None
            assert recorded.changed
        task.cancel()
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        await eventually(lambda: Queue(database).value(deadlocks))


@contextlib.contextmanager
def _small_disk(at: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own at that folder, for the server's user."""
    at.mkdir(exist_ok=True)
    options = f"size={megabytes}m,mode=700,uid=nobody"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(at)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def _fill(folder: Path) -> Path:
    """A file that takes all that is free."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(65536))
    return filler


@pytest.mark.timeout(180)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file system")
async def test_the_tables_disk_is_full(server: EmbeddedPostgres, folder: Path) -> None:
    disk = folder / "tables"
    with _small_disk(disk, 64):
        server.start()
        await migrate(server.url, logins={})
        async with await psycopg.AsyncConnection.connect(server.url, autocommit=True) as owner:
            await owner.execute(f"CREATE TABLESPACE small LOCATION '{disk}'".encode())
            for table in ("background_jobs", "job_attempts"):
                await owner.execute(f"ALTER TABLE hybridjobs.{table} SET TABLESPACE small".encode())
        # Of so small ones it takes more than a fast machine can make to fill the disk once more.
        await _full_and_free_again(server, disk, Load(server.url))
        await asyncio.to_thread(server.stop)


@pytest.mark.timeout(180)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file system")
async def test_the_logs_disk_is_full(server: EmbeddedPostgres, folder: Path) -> None:
    """Worse: the server cannot go on at all, and stops until there is room again."""
    disk = folder / "wal"
    server.initialise()
    with _small_disk(disk, 96):
        wal = server.data / "pg_wal"
        for entry in wal.iterdir():
            shutil.move(entry, disk / entry.name)
        for path in (disk, *disk.rglob("*")):
            shutil.chown(path, "nobody")
        wal.rmdir()
        wal.symlink_to(disk)
        server.start()
        await migrate(server.url, logins={})
        # Of so large ones the room that is still kept in the logs lasts for a moment only.
        load = Load(server.url, payload='{"text": "' + secrets.token_hex(2000) + '"}')
        await _full_and_free_again(server, disk, load)
        await asyncio.to_thread(server.stop)


async def _full_and_free_again(server: EmbeddedPostgres, disk: Path, load: Load) -> None:
    async with Database(server.url, size=2) as database:
        queue = Queue(database)
        async with load.running(clients=20):
            await load.progress()
            filler = _fill(disk)
            await load.trouble()
            filler.unlink()
            process = server._process
            assert process is not None
            with contextlib.suppress(subprocess.TimeoutExpired):
                # A server that its own recovery killed is started again by whoever keeps it.
                await asyncio.to_thread(process.wait, 3)
                await _restarted(server)
            await load.progress()
        await load.verify(queue)
        await queue.register(job_type())
        [job] = await queue.enqueue(new_job())
        assert await queue.claimed() == [job]
