"""The ends of jobs of Inngest's runs: noted in the commit that ends them, kept until settled."""

from datetime import timedelta
from uuid import UUID

import pytest
from psycopg import AsyncConnection, Rollback
from psycopg.rows import DictRow

from hybridjobs.model import Status
from hybridjobs.store.database import Database
from hybridjobs.store.inngest import (
    Ending,
    cancel_jobs_of_run,
    claim_endings,
    job_of_run,
    postpone,
    settle,
    tell_again,
)
from hybridjobs.store.outcome import request_cancel
from tests.builders import new_job
from tests.integration.store.scene import Queue

Connection = AsyncConnection[DictRow]
LEASE = timedelta(minutes=2)


async def claimed(connection: Connection, *, lease: timedelta = LEASE) -> list[Ending]:
    return await claim_endings(connection, limit=100, lease=lease, max_result_bytes=100)


@pytest.fixture
async def job_id(database: Database) -> UUID:
    job = new_job("test/long", source="inngest", key="01RUN", inngest_run_id="01RUN")
    [job_id] = await Queue(database).enqueue(job)
    return job_id


async def set_by_hand(connection: Connection, job_id: UUID, status: str, result: str) -> None:
    await connection.execute(
        "UPDATE hybridjobs.background_jobs SET status = %s, result = %s WHERE id = %s",
        [status, result, job_id],
    )


async def test_an_end_is_noted_whoever_makes_it(connection: Connection, job_id: UUID) -> None:
    assert await claimed(connection) == []
    await set_by_hand(connection, job_id, "completed", '{"a":1}')
    [ending] = await claimed(connection)
    assert (ending.job_id, ending.run_id, ending.status) == (job_id, "01RUN", Status.COMPLETED)
    assert (ending.result, ending.result_omitted, ending.sends) == ('{"a": 1}', False, 1)


async def test_a_cancelled_job_s_end_is_noted_too(connection: Connection, job_id: UUID) -> None:
    await request_cancel(connection, job_id)
    assert [each.status for each in await claimed(connection)] == [Status.CANCELLED]


async def test_an_end_that_is_rolled_back_is_not_noted(database: Database, job_id: UUID) -> None:
    async with database.connection() as connection:
        async with connection.transaction():
            await set_by_hand(connection, job_id, "completed", "1")
            raise Rollback
        assert await claimed(connection) == []


async def test_jobs_of_no_run_are_not_noted(database: Database, connection: Connection) -> None:
    [job_id] = await Queue(database).enqueue(new_job("test/long", inngest_event_id="e"))
    await request_cancel(connection, job_id)
    assert await claimed(connection) == []


async def test_what_is_claimed_is_nobody_else_s_until_the_lease_is_over(
    connection: Connection, job_id: UUID
) -> None:
    await request_cancel(connection, job_id)
    [first] = await claimed(connection, lease=timedelta(0))
    [second] = await claimed(connection)
    assert (first.sends, second.sends) == (1, 2)
    assert await claimed(connection) == []


async def test_what_is_settled_is_gone_and_what_is_postponed_comes_again(
    connection: Connection, job_id: UUID
) -> None:
    await request_cancel(connection, job_id)
    [ending] = await claimed(connection)
    await postpone(connection, [(ending, timedelta(0))])
    [again] = await claimed(connection)
    await settle(connection, [again])
    assert await claimed(connection, lease=timedelta(0)) == []
    cursor = await connection.execute("SELECT count(*) AS n FROM hybridjobs.inngest_endings")
    assert await cursor.fetchone() == {"n": 0}


async def test_an_end_that_is_due_anew_is_not_settled_by_an_earlier_claim(
    connection: Connection, job_id: UUID
) -> None:
    await request_cancel(connection, job_id)
    [earlier] = await claimed(connection)
    assert await tell_again(connection, "01RUN", "test/long")
    await settle(connection, [earlier])
    await postpone(connection, [(earlier, timedelta(hours=1))])
    assert [each.sends for each in await claimed(connection)] == [1]


async def test_a_job_that_has_not_ended_is_not_told(connection: Connection, job_id: UUID) -> None:
    assert not await tell_again(connection, "01RUN", "test/long")
    assert not await tell_again(connection, "01OTHER", "test/long")
    assert await claimed(connection) == []


async def test_a_large_result_is_left_out(connection: Connection, job_id: UUID) -> None:
    await set_by_hand(connection, job_id, "completed", '"' + "x" * 200 + '"')
    [ending] = await claimed(connection)
    assert (ending.result, ending.result_omitted) == (None, True)


async def test_an_end_goes_with_its_job(connection: Connection, job_id: UUID) -> None:
    await request_cancel(connection, job_id)
    await connection.execute("DELETE FROM hybridjobs.background_jobs WHERE id = %s", [job_id])
    assert await claimed(connection) == []
    assert await job_of_run(connection, "01RUN", "test/long") is None


async def test_the_jobs_of_a_run_are_cancelled_together(
    database: Database, connection: Connection, job_id: UUID
) -> None:
    other = new_job("test/other", source="inngest", key="01RUN", inngest_run_id="01RUN")
    [other_id] = await Queue(database).enqueue(other)
    cancelled = {job_id: Status.CANCELLED, other_id: Status.CANCELLED}
    assert await cancel_jobs_of_run(connection, "01RUN") == cancelled
    assert await cancel_jobs_of_run(connection, "01RUN") == dict.fromkeys(cancelled)
    assert await cancel_jobs_of_run(connection, "01NONE") == {}


async def test_a_run_s_job_is_found_by_an_index(connection: Connection, job_id: UUID) -> None:
    await connection.execute("SET enable_seqscan = off")
    cursor = await connection.execute(
        "EXPLAIN SELECT id FROM hybridjobs.background_jobs"
        " WHERE source = 'inngest' AND key = '01RUN' AND type = 'test/long'"
    )
    plan = "\n".join(str(row["QUERY PLAN"]) for row in await cursor.fetchall())
    await connection.execute("RESET enable_seqscan")
    assert "background_jobs_key" in plan
