"""Ticks become jobs, each once, on a real Postgres."""

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow

from hybridjobs.errors import DatabaseUnavailable
from hybridjobs.model import Decision
from hybridjobs.schedules.known import KnownSchedules
from hybridjobs.schedules.ticker import Ticker
from hybridjobs.schedules.ticks import Schedule, rfc3339
from hybridjobs.store import schedules
from hybridjobs.store.database import Database
from hybridjobs.store.embedded import EmbeddedPostgres
from hybridjobs.store.schedules import ScheduleState, record_ticks
from tests.builders import job_type, register
from tests.conftest import DatabaseUrls
from tests.integration.store.scene import held_open
from tests.unit.schedules.objects import hybridjobschedule

_JOBS = """
SELECT id, type, status, payload::text, source, key, priority, max_retries, deadline_seconds,
       schedule, submitted_by, concurrency_key, stage, outcome_reason, cancel_requested_at
FROM hybridjobs.background_jobs ORDER BY id
"""
_TICKS = "SELECT * FROM hybridjobs.schedule_ticks ORDER BY tick_at"
_START = """
UPDATE hybridjobs.background_jobs
SET status = 'processing', stage = NULL, dispatched_at = now(), started_at = now()
RETURNING id
"""
_END = "UPDATE hybridjobs.background_jobs SET status = 'cancelled' RETURNING id"
# One for all of a test, so that no minute passes within it.
_NOW = datetime.now(UTC)


def _minutes_ago(minutes: int) -> datetime:
    return _NOW - timedelta(minutes=minutes)


def _once(minutes_ago: int, **parts: Any) -> dict[str, Any]:
    """A schedule of one tick, so many minutes ago, and then none for a year."""
    tick = _minutes_ago(minutes_ago)
    parts = {"created": rfc3339(tick - timedelta(hours=1)), **parts}
    return hybridjobschedule(f"{tick.minute} {tick.hour} {tick.day} {tick.month} *", **parts)


def _hourly(hours: int, **parts: Any) -> dict[str, Any]:
    """A schedule with a tick an hour since `hours` ago, the last one two minutes ago."""
    tick = _minutes_ago(2)
    created = rfc3339(tick - timedelta(hours=hours, minutes=-1))
    return hybridjobschedule(f"{tick.minute} * * * *", created=created, **parts)


def _ticker(database: Database, *bodies: dict[str, Any]) -> tuple[Ticker, KnownSchedules]:
    known = KnownSchedules()
    known.replace_all(bodies, events=0)
    return Ticker(database, known), known


async def _decide(database: Database, *bodies: dict[str, Any]) -> KnownSchedules:
    """One look of an operator that has just been started."""
    ticker, known = _ticker(database, *bodies)
    await ticker.once()
    return known


async def _rows(database: Database, statement: str) -> Sequence[DictRow]:
    async with database.connection() as connection:
        return await (await connection.execute(statement.encode())).fetchall()


async def _decisions(database: Database) -> list[str]:
    return [row["decision"] for row in await _rows(database, _TICKS)]


def _state(known: KnownSchedules) -> ScheduleState:
    assert known.states is not None
    return known.states.by_uid["hjs-1"]


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    monkeypatch.setattr(sys.modules[__name__], "_NOW", now)


@pytest.fixture(autouse=True)
async def _type(database: Database) -> None:
    spec: dict[str, Any] = {"deadlineSeconds": 60, "priority": 4, "retry": {"limit": 7}}
    async with database.connection() as connection:
        await register(connection, job_type(concurrency={"limit": 1, "key": "repository"}, **spec))


async def test_a_ticks_job_is_a_job_like_any_other(database: Database) -> None:
    body = _once(2, payload={"repository": "a/b"})
    known = await _decide(database, body)
    [job] = await _rows(database, _JOBS)
    [tick] = await _rows(database, _TICKS)
    assert job | {"id": None} == {
        "id": None,
        "type": "test/long",
        "status": "queued",
        "payload": '{"repository":"a/b"}',
        "source": "schedule",
        "key": f"hjs-1/{rfc3339(_minutes_ago(2))}",
        "priority": 4,
        "max_retries": 7,
        "deadline_seconds": 60,
        "schedule": "nightly",
        "submitted_by": "schedule:nightly",
        "concurrency_key": "a/b",
        "stage": "ready",
        "outcome_reason": None,
        "cancel_requested_at": None,
    }
    assert (tick["decision"], tick["schedule"], tick["job_id"]) == (
        "submitted",
        "nightly",
        job["id"],
    )
    assert _state(known).active == 1
    assert [each.job_id for each in _state(known).ticks] == [job["id"]]


async def test_a_tick_that_a_backup_does_not_know_has_the_same_job_again(
    database: Database,
) -> None:
    await _decide(database, _once(2))
    [job] = await _rows(database, _JOBS)
    for table in ("background_jobs", "schedule_ticks"):
        await _rows(database, f"DELETE FROM hybridjobs.{table} RETURNING 1")
    await _decide(database, _once(2))
    assert [each["id"] for each in await _rows(database, _JOBS)] == [job["id"]]


async def test_a_payload_that_does_not_fit_its_type_makes_no_job(database: Database) -> None:
    strict = {"properties": {"repository": {"type": "string"}}}
    async with database.connection() as connection:
        await register(connection, job_type("test/strict", payloadSchema=strict))
    known = await _decide(database, _once(2, type="test/strict", payload={"repository": 7}))
    assert (await _rows(database, _JOBS), await _rows(database, _TICKS)) == ([], [])
    assert known.states is not None
    assert "/payload/repository" in known.states.refused["hjs-1"]
    await _decide(database, _once(2, type="test/strict", payload={"repository": "a/b"}))
    assert await _decisions(database) == ["submitted"]


async def test_eight_that_decide_at_once_make_one_job(database_urls: DatabaseUrls) -> None:
    body = _once(2, concurrencyPolicy="Replace")
    async with Database(database_urls.service, size=16) as database:
        tickers = [_ticker(database, body)[0] for _ in range(8)]
        for _ in range(3):
            await asyncio.gather(*(ticker.once() for ticker in tickers))
        assert len(await _rows(database, _JOBS)) == 1
        assert await _decisions(database) == ["submitted"]


async def test_many_ticks_decided_by_many_start_one_job_each(database_urls: DatabaseUrls) -> None:
    async with Database(database_urls.service, size=16) as database:
        for minutes in (9, 7, 5, 3):
            tickers = [_ticker(database, _once(minutes))[0] for _ in range(4)]
            await asyncio.gather(*(ticker.once() for ticker in tickers))
        jobs = await _rows(database, _JOBS)
        ticks = await _rows(database, _TICKS)
    assert [tick["job_id"] for tick in ticks] == [job["id"] for job in jobs]
    assert len({job["key"] for job in jobs}) == 4


async def test_a_tick_is_inserted_once_even_without_the_lock(database: Database) -> None:
    decisions = {_minutes_ago(2): Decision.SUBMITTED}
    async with database.connection() as connection:
        first, second = [
            await record_ticks(connection, "hjs-1", "nightly", decisions, kept=10) for _ in range(2)
        ]
    assert (first, second) == (frozenset(decisions), frozenset())


async def test_a_restart_between_changes_nothing(database: Database) -> None:
    for _ in range(3):
        await _decide(database, _once(2))
    assert len(await _rows(database, _JOBS)) == 1


async def test_a_crash_before_the_commit_leaves_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr("hybridjobs.schedules.ticker.submit_tick", crash)
        with pytest.raises(DatabaseUnavailable):
            await _decide(database, _once(2))
    assert await _rows(database, _TICKS) == []
    await _decide(database, _once(2))
    assert len(await _rows(database, _JOBS)) == 1


async def test_a_job_that_outlived_its_tick_is_not_made_again(database: Database) -> None:
    await _decide(database, _once(2))
    [job] = await _rows(database, _JOBS)
    await _rows(database, "DELETE FROM hybridjobs.schedule_ticks RETURNING *")
    await _decide(database, _once(2))
    [tick] = await _rows(database, _TICKS)
    assert len(await _rows(database, _JOBS)) == 1
    assert tick["job_id"] == job["id"]


@pytest.mark.parametrize("status", ["queued", "processing"])
async def test_forbid_skips_while_a_job_is_open(database: Database, status: str) -> None:
    await _decide(database, _once(9))
    if status == "processing":
        await _rows(database, _START)
    known = await _decide(database, _once(7, concurrencyPolicy="Forbid"))
    assert await _decisions(database) == ["submitted", "skipped"]
    assert _state(known).active == 1
    await _rows(database, _END)
    await _decide(database, _once(5, concurrencyPolicy="Forbid"))
    assert await _decisions(database) == ["submitted", "skipped", "submitted"]


async def test_replace_cancels_what_is_queued_and_asks_what_runs_to_end(database: Database) -> None:
    await _decide(database, _once(9))
    await _rows(database, _START)
    await _decide(database, _once(7))
    await _decide(database, _once(5, concurrencyPolicy="Replace"))
    assert await _decisions(database) == ["submitted", "submitted", "replaced"]
    running, queued, new = await _rows(database, _JOBS)
    assert (running["status"], running["cancel_requested_at"] is None) == ("processing", False)
    assert (queued["status"], queued["outcome_reason"]) == ("cancelled", "Replaced")
    assert (new["status"], new["cancel_requested_at"]) == ("queued", None)


async def test_replace_with_nothing_open_is_an_ordinary_tick(database: Database) -> None:
    await _decide(database, _once(5, concurrencyPolicy="Replace"))
    assert await _decisions(database) == ["submitted"]


async def test_allow_lets_them_pile_up(database: Database) -> None:
    for minutes in (9, 7):
        known = await _decide(database, _once(minutes))
    assert _state(known).active == 2


async def test_jobs_of_other_schedules_are_nobodys_business(database: Database) -> None:
    await _decide(database, _once(9, name="other", uid="hjs-2"))
    await _decide(database, _once(7, concurrencyPolicy="Forbid"))
    assert await _decisions(database) == ["submitted", "submitted"]


async def test_after_an_absence_the_newest_tick_runs_and_the_others_are_missed(
    database: Database,
) -> None:
    await _decide(database, _hourly(4))
    assert await _decisions(database) == ["missed", "missed", "missed", "submitted"]
    [job] = await _rows(database, _JOBS)
    assert job["key"] == f"hjs-1/{rfc3339(_minutes_ago(2))}"
    await _decide(database, _hourly(4))
    assert len(await _rows(database, _JOBS)) == 1


async def test_a_tick_beyond_the_starting_deadline_is_missed(database: Database) -> None:
    await _decide(database, _hourly(4, startingDeadlineSeconds=30))
    assert set(await _decisions(database)) == {"missed"}
    assert await _rows(database, _JOBS) == []


async def test_a_long_absence_writes_no_more_than_the_history(database: Database) -> None:
    await _decide(database, _hourly(10_000, historyLimit=100))
    assert await _decisions(database) == ["missed"] * 99 + ["submitted"]


async def test_the_history_is_trimmed_but_never_its_newest_tick(database: Database) -> None:
    for minutes in (9, 8, 7, 6):
        await _decide(database, _once(minutes, historyLimit=2))
    assert [row["tick_at"] for row in await _rows(database, _TICKS)] == [
        _minutes_ago(7),
        _minutes_ago(6),
    ]
    await _decide(database, _once(5, historyLimit=0))
    await _decide(database, _once(5, historyLimit=0))
    assert [row["tick_at"] for row in await _rows(database, _TICKS)] == [_minutes_ago(5)]
    assert len(await _rows(database, _JOBS)) == 5


async def test_what_is_suspended_starts_nothing_then_or_later(database: Database) -> None:
    await _decide(database, _hourly(3, suspend=True))
    await _decide(database, _hourly(3))
    assert set(await _decisions(database)) == {"skipped"}
    assert await _rows(database, _JOBS) == []


async def test_ticks_before_the_schedule_never_count(database: Database) -> None:
    await _decide(database, _once(5, created=rfc3339(_minutes_ago(4))))
    await _decide(database, _once(5, created=rfc3339(_minutes_ago(5))))
    assert await _rows(database, _TICKS) == []


@pytest.mark.parametrize(
    "spec", [{"timeZone": "Mars/Olympus"}, {"type": "test/typo"}, {"payload": {"a": "\0"}}]
)
async def test_a_fault_writes_nothing(database: Database, spec: dict[str, Any]) -> None:
    body = _once(2)
    await _decide(database, {**body, "spec": {**body["spec"], **spec}})
    assert await _rows(database, _TICKS) == []
    assert await _rows(database, _JOBS) == []


async def test_a_type_that_comes_later_finds_the_tick_waiting(database: Database) -> None:
    ticker, known = _ticker(database, _once(2, type="test/later"))
    await ticker.once()
    async with database.connection() as connection:
        await register(connection, job_type("test/later"))
    await ticker.once()
    assert [job["type"] for job in await _rows(database, _JOBS)] == ["test/later"]
    assert known.states is not None
    assert known.states.types == ["test/later", "test/long"]


async def test_one_that_fails_does_not_hold_up_the_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_one(schedule: Schedule, *_: object) -> None:
        raise ValueError(schedule.name)

    with monkeypatch.context() as patch:
        patch.setattr("hybridjobs.schedules.ticker.job_of", fail_one)
        ticker, _ = _ticker(database, _once(2), _hourly(1, name="other", uid="hjs-2", suspend=True))
        await ticker.once()
    assert await _decisions(database) == ["skipped"]
    await ticker.once()
    assert sorted(await _decisions(database)) == ["skipped", "submitted"]


async def test_an_open_job_that_somebody_keeps_locked_holds_up_its_own_schedule_alone(
    database: Database, database_urls: DatabaseUrls
) -> None:
    await _decide(database, _once(9))
    bodies = _once(5, concurrencyPolicy="Replace"), _once(5, name="other", uid="hjs-2")
    lock = "SELECT FROM hybridjobs.background_jobs FOR UPDATE"
    async with held_open(database_urls.owner, lock), asyncio.timeout(10):
        await _decide(database, *bodies)
    assert await _decisions(database) == ["submitted", "submitted"]
    await _decide(database, *bodies)
    assert sorted(await _decisions(database)) == ["replaced", "submitted", "submitted"]


async def test_the_old_ticks_of_schedules_that_are_gone_go_too(database: Database) -> None:
    await _decide(database, _once(9), _once(9, name="gone", uid="hjs-2"))
    await _decide(database, _once(9))
    assert len(await _decisions(database)) == 2
    await _rows(
        database,
        "UPDATE hybridjobs.schedule_ticks SET decided_at = now() - interval '8 days' RETURNING 1",
    )
    await _decide(database, _once(9))
    assert [row["schedule_uid"] for row in await _rows(database, _TICKS)] == ["hjs-1"]


async def test_the_wait_is_until_the_next_tick_and_half_a_minute_at_most(
    database: Database,
) -> None:
    assert await _ticker(database)[0].once() == 30
    assert await _ticker(database, _once(2))[0].once() == 30
    ticker, _ = _ticker(database, hybridjobschedule(created=rfc3339(datetime.now(UTC))))
    while True:
        began = datetime.now(UTC)
        seconds = await ticker.once()
        ended = datetime.now(UTC)
        if began.minute == ended.minute:  # else nobody knows in which of them it looked
            break
    earliest, latest = (60 - each.timestamp() % 60 for each in (ended, began))
    assert min(30, earliest) - 0.01 <= seconds <= min(30, latest) + 0.01


async def test_a_schedule_is_decided_when_it_comes(database: Database) -> None:
    known = KnownSchedules()
    running = asyncio.create_task(Ticker(database, known).run())
    await asyncio.sleep(0.1)
    await known.on_event("ADDED", _once(2))
    while not await _rows(database, _JOBS):
        assert not running.done()
        await asyncio.sleep(0.02)
    running.cancel()


async def test_a_database_that_is_away_is_waited_for(
    database: Database,
    postgres: EmbeddedPostgres,
    database_urls: DatabaseUrls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hybridjobs.schedules.ticker._RETRY_SECONDS", 0.05)
    name = conninfo_to_dict(database_urls.service)["dbname"]
    async with (
        await AsyncConnection.connect(postgres.url, autocommit=True) as server,
        Database(database_urls.service, size=1, wait_seconds=0.2) as away,
    ):
        await server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        await server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        running = asyncio.create_task(_ticker(away, _once(2))[0].run())
        await asyncio.sleep(0.5)
        assert not running.done()
        await server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
        while not await _rows(database, _JOBS):
            assert not running.done()
            await asyncio.sleep(0.02)
        running.cancel()


async def test_open_jobs_and_ticks_are_found_by_index(database: Database) -> None:
    parameters = {"uid": "hjs-1", "name": "nightly", "uids": ["hjs-1"], "names": ["nightly"]}
    async with database.transaction() as connection:
        await connection.execute("SET LOCAL enable_seqscan = off")
        for statement, index in (
            (schedules._MEMORY, "background_jobs_schedule"),
            (schedules._MEMORY, "schedule_ticks_pkey"),
            (schedules._ACTIVE, "background_jobs_schedule"),
            (schedules._TICKS, "schedule_ticks_pkey"),
        ):
            explain = f"EXPLAIN {statement}".encode()
            plan = await (await connection.execute(explain, parameters)).fetchall()
            assert index in " ".join(str(line) for line in plan), statement
