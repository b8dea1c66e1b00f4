"""Enqueue, claim, start, outcome: the queue's own promises, on a real Postgres."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.errors import AttemptClosed, InvalidInput
from hybridjobs.model import AttemptEnd, Claim, Enqueued, Outcome, Progress, Status
from hybridjobs.store import attempts, heartbeats
from hybridjobs.store.claim import claim
from hybridjobs.store.database import Database
from hybridjobs.store.enqueue import Enqueuer
from hybridjobs.store.heartbeats import Beat
from hybridjobs.store.jobs import Job, get_job
from hybridjobs.store.outcome import Outcomes, record_outcome, request_cancel
from hybridjobs.store.resources import mark_dispatched
from tests.builders import job_type, new_job, register
from tests.conftest import DatabaseUrls
from tests.integration.store.scene import Queue


@pytest.fixture
async def enqueuer(database_urls: DatabaseUrls) -> AsyncIterator[Enqueuer]:
    enqueuer = Enqueuer(database_urls.service)
    task = asyncio.create_task(enqueuer.run())
    yield enqueuer
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _enqueued(database: Database, enqueuer: Enqueuer, **spec: object) -> Enqueued:
    async with database.connection() as connection:
        await register(connection, job_type(**spec))  # type: ignore[arg-type]
    [row] = await enqueuer.enqueue([new_job()])
    return row


async def _claimed(database: Database) -> Claim:
    async with database.transaction() as connection:
        [claimed] = await claim(connection, window=10)
    async with database.connection() as connection:
        await mark_dispatched(connection, claimed, namespace="jobs", name="a", uid="u1")
    return claimed


async def _job(database: Database, row: Enqueued) -> Job:
    async with database.connection() as connection:
        job = await get_job(connection, row.id)
    assert job is not None
    return job


async def _end(database: Database, claimed: Claim, end: AttemptEnd) -> Status:
    async with database.transaction() as connection:
        recorded = await record_outcome(connection, claimed.job_id, claimed.attempt, end)
    assert recorded is not None
    return recorded.status


async def test_a_replay_gives_the_same_job(enqueuer: Enqueuer, database: Database) -> None:
    first, second = [
        await enqueuer.enqueue([new_job(key="delivery-1", source="github")]) for _ in range(2)
    ]
    assert first[0].created
    assert not second[0].created
    assert first[0].id == second[0].id


async def test_concurrent_replays_give_the_same_job(enqueuer: Enqueuer) -> None:
    answers = await asyncio.gather(
        *(enqueuer.enqueue([new_job(key="k"), new_job("test/other", key="k")]) for _ in range(50))
    )
    assert len({row.id for rows in answers for row in rows}) == 2
    assert sum(row.created for rows in answers for row in rows) == 2


@pytest.mark.parametrize("fault", [{"payload": '{"cut off'}, {"priority": 101}])
async def test_bad_data_fails_only_its_own_job(enqueuer: Enqueuer, fault: dict[str, Any]) -> None:
    good, bad, other = await asyncio.gather(
        enqueuer.enqueue([new_job()]),
        enqueuer.enqueue([new_job(**fault)]),
        enqueuer.enqueue([new_job()]),
        return_exceptions=True,
    )
    assert isinstance(bad, InvalidInput)
    assert not isinstance(good, BaseException)
    assert not isinstance(other, BaseException)


async def test_what_has_no_utf_8_is_refused_alone(enqueuer: Enqueuer) -> None:
    good, bad, other = await asyncio.gather(
        enqueuer.enqueue([new_job()]),
        enqueuer.enqueue([new_job(payload='{"s": "\ud800"}')]),
        enqueuer.enqueue([new_job()]),
        return_exceptions=True,
    )
    assert isinstance(bad, InvalidInput)
    assert not isinstance(good, BaseException)
    assert not isinstance(other, BaseException)


@pytest.mark.parametrize(
    "payload",
    [
        '{"n": 12345678901234567890}',
        '{"n": 1.0, "e": 1e400}',
        '{ "b" : 1,\n "a":2, "a":3 }',
        '{"s": "$(HOME) $$ \\\\ \\" \U0001f600 \u4e2d \U0010fffd"}',
        "[]",
        "null",
    ],
)
async def test_a_payload_is_stored_as_it_is(
    enqueuer: Enqueuer, database: Database, payload: str
) -> None:
    [row] = await enqueuer.enqueue([new_job(payload=payload)])
    assert (await _job(database, row)).payload == payload


async def test_a_job_goes_from_queued_to_completed(enqueuer: Enqueuer, database: Database) -> None:
    row = await _enqueued(database, enqueuer)
    claimed = await _claimed(database)
    assert (claimed.job_id, claimed.attempt) == (row.id, 1)
    assert (await _job(database, row)).status is Status.QUEUED

    started = datetime.now(UTC) - timedelta(seconds=2)
    async with database.connection() as connection:
        await attempts.start(
            connection, row.id, 1, pod_name="pod", pod_uid="pod-uid", started_at=started
        )
        assert await heartbeats.record_beats(
            connection, [Beat(row.id, 1, Progress(3, 10, "pages"))]
        ) == [False]
    running = await _job(database, row)
    assert running.status is Status.PROCESSING
    assert running.progress == {"done": 3, "total": 10, "message": "pages"}

    end = AttemptEnd(Outcome.SUCCEEDED, "Completed", result='{"ok": 1.0}', log_tail="a\0b")
    assert await _end(database, claimed, end) is Status.COMPLETED
    done = await _job(database, row)
    assert done.result == '{"ok": 1.0}'
    assert done.duration_ms is not None
    assert done.duration_ms >= 2000
    assert done.progress == running.progress
    assert [(a.outcome, a.log_tail) for a in done.attempts] == [("succeeded", "a\ufffdb")]


async def test_what_has_started_is_not_said_never_to_have(
    enqueuer: Enqueuer, database: Database
) -> None:
    row = await _enqueued(database, enqueuer)
    claimed = await _claimed(database)
    async with database.connection() as connection:
        await attempts.start(
            connection, row.id, 1, pod_name="pod", pod_uid="u", started_at=datetime.now(UTC)
        )
    late = AttemptEnd(Outcome.NEVER_STARTED, "Unschedulable", "no node has room")
    assert await _end(database, claimed, late) is Status.PROCESSING
    assert [each.outcome for each in (await _job(database, row)).attempts] == [None]


async def test_a_late_report_changes_nothing(enqueuer: Enqueuer, database: Database) -> None:
    row = await _enqueued(database, enqueuer)
    claimed = await _claimed(database)
    await _end(database, claimed, AttemptEnd(Outcome.PERMANENT, "Refused", "no"))
    before = await _job(database, row)
    late = AttemptEnd(Outcome.SUCCEEDED, "Completed", result="1", log_tail="log")
    assert await _end(database, claimed, late) is Status.FAILED
    after = await _job(database, row)
    assert (after.status, after.result, after.error) == (before.status, None, "no")
    assert after.attempts[0].log_tail == "log"
    async with database.connection() as connection:
        assert await heartbeats.record_beats(connection, [Beat(row.id, 1)]) == [None]
        with pytest.raises(AttemptClosed):
            await attempts.save_checkpoint(connection, row.id, 1, "{}")


@pytest.mark.parametrize("what", ["checkpoint", "beat"])
async def test_what_an_attempt_said_before_its_end_does_not_replace_its_successors_word(
    database: Database, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    queue = Queue(database)
    await queue.register(job_type())
    [job] = await queue.enqueue(new_job())

    async def say(connection: AsyncConnection[DictRow], attempt: int) -> None:
        if what == "checkpoint":
            await attempts.save_checkpoint(connection, job, attempt, str(attempt))
        else:
            [asked] = await heartbeats.record_beats(connection, [Beat(job, attempt)])
            if asked is None:
                raise AttemptClosed(job, attempt)

    async def say_late() -> None:
        async with database.connection() as connection:
            await say(connection, 1)

    module, name, table = {
        "checkpoint": (attempts, "_SAVE_CHECKPOINT", "job_checkpoints"),
        "beat": (heartbeats, "_BEAT", "job_heartbeats"),
    }[what]
    monkeypatch.setattr(module, name, getattr(module, name).replace("'1s'", "'30s'"))
    await queue.claim()
    await say_late()
    async with database.transaction() as connection:
        await connection.execute(f"SELECT FROM hybridjobs.{table} FOR UPDATE".encode())
        late = asyncio.create_task(say_late())
        await queue.somebody_waits()
        await queue.end(job, Outcome.DISRUPTED)
        await queue.claim()
        await say(connection, 2)
    with pytest.raises(AttemptClosed):
        await late
    assert await queue.value(f"SELECT attempt FROM {table}") == 2


async def test_a_failure_waits_its_backoff_and_keeps_its_row(
    enqueuer: Enqueuer, database: Database
) -> None:
    row = await _enqueued(database, enqueuer)
    claimed = await _claimed(database)
    end = AttemptEnd(Outcome.FAILED, "Error", "boom", exit_code=1, retry_after_seconds=60)
    assert await _end(database, claimed, end) is Status.QUEUED
    job = await _job(database, row)
    assert job.retry_count == 1
    assert job.run_at > datetime.now(UTC) + timedelta(seconds=50)
    assert [(a.outcome, a.spent_retry, a.exit_code) for a in job.attempts] == [("failed", True, 1)]
    async with database.transaction() as connection:
        assert await claim(connection, window=10) == []


async def test_a_disruption_spends_no_retry(enqueuer: Enqueuer, database: Database) -> None:
    row = await _enqueued(database, enqueuer, retry={"limit": 0})
    for attempt in range(1, 6):
        claimed = await _claimed(database)
        assert claimed.attempt == attempt
        await _end(database, claimed, AttemptEnd(Outcome.DISRUPTED, "Evicted"))
        assert (await _job(database, row)).retry_count == 0
    job = await _job(database, row)
    assert job.status is Status.QUEUED


async def test_a_failed_job_has_a_dead_letter(enqueuer: Enqueuer, database: Database) -> None:
    row = await _enqueued(database, enqueuer)
    claimed = await _claimed(database)
    assert (
        await _end(database, claimed, AttemptEnd(Outcome.DEADLINE, "DeadlineExceeded"))
        is Status.FAILED
    )
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT * FROM hybridjobs.dead_letter_queue")
        [letter] = await cursor.fetchall()
        assert letter["original_job_id"] == row.id
        assert letter["error_category"] == "timeout"
        assert letter["error_history"][0]["reason"] == "DeadlineExceeded"
        retried = await (
            await connection.execute("SELECT hybridjobs.retry_failed_job(%s) AS did", [row.id])
        ).fetchone()
        assert retried == {"did": True}
    assert (await _claimed(database)).attempt == 2


async def test_cancel_of_a_queued_job_is_immediate(enqueuer: Enqueuer, database: Database) -> None:
    row = await _enqueued(database, enqueuer)
    async with database.connection() as connection:
        assert await request_cancel(connection, row.id) is Status.CANCELLED
        assert await request_cancel(connection, row.id) is None


async def test_with_a_cancel_pending_failure_is_cancelled_and_success_completed(
    enqueuer: Enqueuer, database: Database
) -> None:
    ends = {
        Status.CANCELLED: AttemptEnd(Outcome.DEADLINE, "DeadlineExceeded"),
        Status.COMPLETED: AttemptEnd(Outcome.SUCCEEDED, "Completed"),
    }
    for expected, end in ends.items():
        row = await _enqueued(database, enqueuer)
        claimed = await _claimed(database)
        async with database.connection() as connection:
            assert await request_cancel(connection, row.id) is Status.QUEUED
        assert await _end(database, claimed, end) is expected


async def test_one_type_cannot_take_the_whole_window(
    enqueuer: Enqueuer, database: Database
) -> None:
    async with database.connection() as connection:
        await register(connection, job_type(), job_type("test/other"))
    await enqueuer.enqueue([new_job() for _ in range(20)])
    await enqueuer.enqueue([new_job("test/other")])
    async with database.transaction() as connection:
        claimed = await claim(connection, window=10)
    assert Counter(each.type for each in claimed) == {"test/long": 5, "test/other": 1}


async def test_only_one_claims_at_a_time(enqueuer: Enqueuer, database: Database) -> None:
    await _enqueued(database, enqueuer)
    async with database.transaction() as one, database.transaction() as other:
        assert len(await claim(one, window=10)) == 1
        assert await claim(other, window=10) == []


async def test_an_unconfirmed_claim_is_driven_again(enqueuer: Enqueuer, database: Database) -> None:
    row = await _enqueued(database, enqueuer)
    async with database.transaction() as connection:
        await claim(connection, window=10)
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE hybridjobs.job_attempts SET claimed_at = now() - interval '1 minute'"
        )
    async with database.transaction() as connection:
        [again] = await claim(connection, window=10)
    assert (again.job_id, again.attempt) == (row.id, 1)


async def test_a_quick_job_is_begun_with_its_row_and_recorded_in_one(
    enqueuer: Enqueuer, database: Database, database_urls: DatabaseUrls
) -> None:
    [row] = await enqueuer.enqueue([new_job(lease_seconds=10.0)])
    assert row.status is Status.PROCESSING
    outcomes = Outcomes(database_urls.service)
    task = asyncio.create_task(outcomes.run())
    ends = [
        AttemptEnd(Outcome.SUCCEEDED, "Completed", result=f'{{"a": {n}}}', log_tail="log")
        for n in (1, 2)
    ]
    first, second = await asyncio.gather(*(outcomes.record(row.id, 1, end) for end in ends))
    assert first is not None
    assert second is not None
    assert (first.changed, second.changed) == (True, False)
    task.cancel()
    job = await _job(database, row)
    assert (job.status, job.result) == (Status.COMPLETED, '{"a": 1}')


async def test_an_expired_lease_is_found(enqueuer: Enqueuer, database: Database) -> None:
    [row] = await enqueuer.enqueue([new_job(lease_seconds=-1.0)])
    async with database.connection() as connection:
        assert await attempts.expired_leases(connection) == [(row.id, 1)]
