"""Changes are found whatever the order in which their transactions commit."""

import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import DictRow

from hybridjobs.ids import new_id
from hybridjobs.model import AttemptEnd, Outcome, Status
from hybridjobs.store import attempts
from hybridjobs.store.batches import NewBatch, create_batch, get_batches
from hybridjobs.store.changes import Snapshot, changes_since, current_snapshot, job_states
from hybridjobs.store.claim import claim
from hybridjobs.store.database import Database, connect
from hybridjobs.store.embedded import EmbeddedPostgres
from hybridjobs.store.enqueue import insert_jobs
from hybridjobs.store.migrate import migrate
from hybridjobs.store.outcome import record_outcome, request_cancel
from tests.builders import job_type, new_job, register
from tests.conftest import DatabaseUrls, free_port
from tests.integration.store.test_plans import Explained

Connection = psycopg.AsyncConnection[DictRow]


@pytest.fixture
async def connection(database_urls: DatabaseUrls) -> AsyncIterator[Connection]:
    async with await connect(database_urls.service) as connection:
        await register(connection, job_type())
        yield connection


async def _new(connection: Connection, last: Snapshot) -> tuple[list[object], Snapshot]:
    found = await changes_since(connection, last, limit=1000)
    assert found.complete
    return [change.id for change in found.jobs], found.snapshot


async def test_every_step_of_a_job_is_a_change_and_nothing_is_one_twice(
    connection: Connection,
) -> None:
    last = await current_snapshot(connection)
    job = new_job()
    steps = []

    async def step() -> None:
        nonlocal last
        found = await changes_since(connection, last, limit=10)
        last = found.snapshot
        steps.append([(change.status, change.attempt) for change in found.jobs])
        assert (await changes_since(connection, last, limit=10)).jobs == []

    await insert_jobs(connection, [job])
    await step()
    async with connection.transaction():
        await claim(connection, window=1)
    await step()
    started = (await job_states(connection, [job.id]))[job.id].created_at
    await attempts.start(connection, job.id, 1, pod_name="hj", pod_uid="uid", started_at=started)
    await step()
    async with connection.transaction():
        end = AttemptEnd(Outcome.FAILED, "Error", "transient")
        await record_outcome(connection, job.id, 1, end)
    await step()
    await request_cancel(connection, job.id)
    await step()
    assert steps == [
        [(Status.QUEUED, 0)],
        [(Status.QUEUED, 1)],
        [(Status.PROCESSING, 1)],
        [(Status.QUEUED, 1)],
        [(Status.CANCELLED, 1)],
    ]


async def test_a_change_by_hand_is_one_too(connection: Connection) -> None:
    job = new_job()
    await insert_jobs(connection, [job])
    last = await current_snapshot(connection)
    await connection.execute("UPDATE hybridjobs.background_jobs SET priority = 5")
    ids, last = await _new(connection, last)
    assert ids == []
    await connection.execute("UPDATE hybridjobs.background_jobs SET status = 'failed', error = 'x'")
    found = await changes_since(connection, last, limit=10)
    assert [(change.status, change.error) for change in found.jobs] == [(Status.FAILED, "x")]


async def test_who_commits_late_is_not_missed_and_holds_up_nobody(
    connection: Connection, database_urls: DatabaseUrls
) -> None:
    async with Database(database_urls.service, size=3) as database:
        early, late, other = new_job(), new_job(), new_job()
        last = await current_snapshot(connection)
        async with database.transaction() as slow:
            await insert_jobs(slow, [early])
            async with database.transaction() as quick:
                await insert_jobs(quick, [late])
            # The later transaction is committed, the earlier one is not.
            ids, last = await _new(connection, last)
            assert ids == [late.id]
            assert last.in_flight != ()
            await insert_jobs(connection, [other])
            ids, last = await _new(connection, last)
            assert ids == [other.id]
            # A cursor is text to clients, and goes on in any replica.
            last = Snapshot.parse(str(last))
        ids, last = await _new(connection, last)
        assert ids == [early.id]
        assert (await _new(connection, last))[0] == []


async def test_a_transaction_that_is_rolled_back_was_no_change(
    connection: Connection, database_urls: DatabaseUrls
) -> None:
    last = await current_snapshot(connection)
    async with (
        await connect(database_urls.service) as slow,
        slow.transaction(force_rollback=True),
    ):
        await insert_jobs(slow, [new_job()])
        # A later one is over already, so that this one is in flight for the snapshot.
        await insert_jobs(connection, [new_job()])
        _, last = await _new(connection, last)
        assert last.in_flight != ()
    assert (await _new(connection, last))[0] == []


async def test_up_to_an_earlier_snapshot(connection: Connection) -> None:
    first = await current_snapshot(connection)
    one, two = new_job(), new_job()
    await insert_jobs(connection, [one])
    middle = await current_snapshot(connection)
    await insert_jobs(connection, [two])
    found = await changes_since(connection, first, upto=middle, limit=10)
    assert [change.id for change in found.jobs] == [one.id]
    assert found.snapshot == middle


async def test_more_than_the_limit_is_said_and_not_cut(connection: Connection) -> None:
    last = await current_snapshot(connection)
    await insert_jobs(connection, [new_job() for _ in range(11)])
    assert len((await changes_since(connection, last, limit=11)).jobs) == 11
    found = await changes_since(connection, last, limit=10)
    assert (found.complete, found.jobs) == (False, [])
    assert (await _new(connection, found.snapshot))[0] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1:2:",
        "a:1:1:",
        "1:1:2",
        "1:a:b:",
        "1:2:1:",
        "1:0:1:",
        "1:1:3:3",
        "1:1:9:2,2",
        "1:1:9:3,2",
        "1:1:9:,",
        "1:1:9:2;",
        "1:1:99999999999999999999:",
        "1:1:9223372036854775808:",
        "1:9:9:1",
    ],
)
def test_what_is_no_snapshot(text: str) -> None:
    with pytest.raises(ValueError, match="snapshot"):
        Snapshot.parse(text)


async def test_a_look_reads_by_the_index(
    database_urls: DatabaseUrls, connection: Connection
) -> None:
    job = new_job()
    await insert_jobs(connection, [job])
    batch = await create_batch(connection, NewBatch(new_id(), "api"), [new_job()])
    await connection.execute(
        "INSERT INTO hybridjobs.background_jobs (id, type, status, stage, started_at, completed_at)"
        " SELECT gen_random_uuid(), 'test/long', 'completed', NULL, now(), now()"
        " FROM generate_series(1, 50000)"
    )
    async with await psycopg.AsyncConnection.connect(database_urls.owner, autocommit=True) as owner:
        await owner.execute("ANALYZE hybridjobs.background_jobs")
    async with await Explained.to(database_urls.service) as explained:
        last = await current_snapshot(explained)
        await changes_since(explained, last, limit=1000)
        await job_states(explained, [job.id, new_id()])
        assert len(explained.plans) == 4
        assert (await get_batches(explained, [batch.id]))[batch.id].counts[Status.QUEUED] == 1
        for plan in explained.plans:
            assert not plan.scanned, plan
        assert all("background_jobs_changed" in plan.indexes for plan in explained.plans[:2])
        assert all("background_jobs_batch" in plan.indexes for plan in explained.plans[-2:])


@pytest.fixture
def forgetful_postgres() -> Iterator[EmbeddedPostgres]:
    """A server that has little on its disk when it is killed."""
    folder = Path(tempfile.mkdtemp(prefix="hybridjobs-crash-"))
    folder.chmod(0o755)
    options = {"wal_writer_delay": "10s"}
    server = EmbeddedPostgres(
        folder / "data", password=secrets.token_hex(8), port=free_port(), options=options
    )
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


async def test_a_crash_that_gives_numbers_twice_is_noticed_and_a_restart_is_nothing(
    forgetful_postgres: EmbeddedPostgres,
) -> None:
    url = forgetful_postgres.url
    await migrate(url, logins={})
    async with await connect(url) as connection:
        await register(connection, job_type())
        before = await current_snapshot(connection)
    forgetful_postgres.stop()
    forgetful_postgres.start()
    job = new_job()
    async with await connect(url) as connection:
        await insert_jobs(connection, [job])
        assert (await _new(connection, before))[0] == [job.id]
        for _ in range(50):
            async with connection.transaction(force_rollback=True):
                await connection.execute("SELECT pg_current_xact_id()")
        last = await current_snapshot(connection)
        forgetful_postgres.stop(signal.SIGKILL)
    forgetful_postgres.start()
    async with await connect(url) as connection:
        await insert_jobs(connection, [new_job()])
        found = await changes_since(connection, last, limit=10)
        assert found.snapshot.xmax < last.xmax, "its number was there before the crash"
        assert (found.complete, found.jobs) == (False, [])
        assert found.snapshot.era != last.era
        assert (await _new(connection, found.snapshot))[0] == []
