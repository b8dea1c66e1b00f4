"""Migrations on a real Postgres."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib import resources
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from hybridjobs.errors import SchemaError
from hybridjobs.ids import new_id
from hybridjobs.model import Outcome, Status
from hybridjobs.store.database import Database
from hybridjobs.store.embedded import EmbeddedPostgres
from hybridjobs.store.migrate import check, migrate, migrations, required_version
from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.store import at_3c36ce4 as earlier
from tests.integration.store.scene import Queue


async def test_a_second_run_applies_nothing(database_urls: DatabaseUrls) -> None:
    assert await migrate(database_urls.owner, logins={}) == []


async def test_an_altered_migration_is_refused(database_urls: DatabaseUrls) -> None:
    async with await psycopg.AsyncConnection.connect(
        database_urls.owner, autocommit=True
    ) as connection:
        await connection.execute("UPDATE hybridjobs.schema_migrations SET sha256 = 'other'")
        with pytest.raises(SchemaError, match="was altered"):
            await migrate(database_urls.owner, logins={})


async def test_check_names_the_remedy(postgres: EmbeddedPostgres, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await check(connection)
        await connection.execute(
            "DELETE FROM hybridjobs.schema_migrations WHERE version = %s", [required_version()]
        )
        with pytest.raises(SchemaError, match="run `hybridjobs migrate`"):
            await check(connection)
    async with await psycopg.AsyncConnection.connect(
        make_conninfo(postgres.url, dbname="postgres"), autocommit=True
    ) as connection:
        with pytest.raises(SchemaError, match="has no HybridJobs schema"):
            await check(connection)


def test_versions_are_consecutive() -> None:
    versions = [m.version for m in migrations() if m.version is not None]
    assert versions == list(range(1, len(versions) + 1))


async def test_roles_can_do_their_work_and_no_more(database_urls: DatabaseUrls) -> None:
    async with await psycopg.AsyncConnection.connect(
        database_urls.handlers, autocommit=True
    ) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("SELECT * FROM hybridjobs.background_jobs")
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="no job type nope"):
            await connection.execute("SELECT hybridjobs.submit_job('nope')")
    async with await psycopg.AsyncConnection.connect(
        database_urls.service, autocommit=True
    ) as connection:
        await connection.execute("SELECT * FROM hybridjobs.background_jobs")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("DROP TABLE hybridjobs.background_jobs")


# From earlier schemas

_FIRST_WITH_STAGES = 4
_STATES = ("queued", "later", "claimed", "running", "retrying", "completed", "failed", "cancelled")
# A job in every state that a schema before stages knows, the way its programs wrote them.
_JOBS = """
INSERT INTO background_jobs
    (id, type, payload, status, result, error, retry_count, run_at, order_key, attempt,
     dispatched_at, started_at, completed_at, failed_at, cancel_requested_at, key, source,
     outcome_reason, error_category)
SELECT id, 'test/long', jsonb_build_object('state', state, 'n', 1.50),
       CASE WHEN state IN ('completed', 'failed', 'cancelled') THEN state
            WHEN state = 'running' THEN 'processing' ELSE 'queued' END,
       CASE WHEN state = 'completed' THEN '{"a": 1}'::jsonb END,
       CASE WHEN state IN ('failed', 'retrying') THEN 'boom' END,
       CASE WHEN state = 'retrying' THEN 1 ELSE 0 END,
       now() + CASE WHEN state IN ('later', 'retrying') THEN interval '1 hour' ELSE '0' END,
       now() + CASE WHEN state IN ('later', 'retrying') THEN interval '1 hour' ELSE '0' END,
       CASE WHEN state IN ('queued', 'later', 'cancelled') THEN 0 ELSE 1 END,
       CASE WHEN state IN ('claimed', 'running', 'completed', 'failed') THEN now() END,
       CASE WHEN state IN ('running', 'completed', 'failed') THEN now() END,
       CASE WHEN state = 'completed' THEN now() END, CASE WHEN state = 'failed' THEN now() END,
       CASE WHEN state = 'cancelled' THEN now() END, state, 'api',
       CASE WHEN state = 'failed' THEN 'Error' END, CASE WHEN state = 'failed' THEN 'unknown' END
FROM unnest(%(ids)s::uuid[], %(states)s::text[]) AS new (id, state)
"""
_ATTEMPTS = """
INSERT INTO job_attempts
    (job_id, attempt, runner, deadline_seconds, dispatched_at, started_at, ended_at, outcome,
     reason, message, spent_retry, log_tail)
SELECT id, 1, 'pod', 900, now(), CASE WHEN key <> 'claimed' THEN now() END,
       CASE WHEN key IN ('retrying', 'completed', 'failed') THEN now() END,
       CASE WHEN key = 'completed' THEN 'succeeded'
            WHEN key IN ('failed', 'retrying') THEN 'failed' END,
       'Reason', 'message', CASE WHEN key IN ('retrying', 'completed', 'failed') THEN false END,
       'log'
FROM background_jobs WHERE attempt = 1
"""
_OTHERS = """
INSERT INTO job_types (type, name, uid, generation, spec)
VALUES ('test/long', 'test-long', 'u', 1, '{"type": "test/long", "deadlineSeconds": 900}');
INSERT INTO job_heartbeats (job_id, attempt, progress)
SELECT id, 1, '{"done": 1}' FROM background_jobs WHERE key = 'running';
INSERT INTO job_checkpoints (job_id, attempt, data)
SELECT id, 1, '{"cursor": 7}' FROM background_jobs WHERE key = 'running';
INSERT INTO dead_letter_queue
    (id, original_job_id, type, payload, error_history, failure_count, error_category,
     first_failed_at, last_failed_at)
SELECT gen_random_uuid(), id, type, payload, '[]', 1, 'unknown', now(), now()
FROM background_jobs WHERE key = 'failed';
INSERT INTO submit_grants VALUES ('someone', 'test/long')
"""
_WITH_STAGES = """
UPDATE job_types SET spec = spec || '{"concurrency": {"limit": 1, "key": "k"}}';
UPDATE background_jobs SET concurrency_key = 'a' WHERE key IN ('queued', 'running');
UPDATE background_jobs SET stage = 'parked' WHERE key = 'queued';
INSERT INTO parked_keys VALUES ('test/long', 'a', now());
INSERT INTO background_jobs (id, type, stage, on_dependency_failure, key)
VALUES (gen_random_uuid(), 'test/long', 'blocked', 'cancel', 'waiting');
INSERT INTO job_dependencies (job_id, depends_on)
SELECT waiting.id, running.id FROM background_jobs waiting, background_jobs running
WHERE waiting.key = 'waiting' AND running.key = 'running';
INSERT INTO job_batches (id, source, total) VALUES (gen_random_uuid(), 'api', 1);
INSERT INTO schedule_ticks VALUES ('u', now(), 'nightly', 'submitted', gen_random_uuid())
"""
# Tables of rows that stay as they are; roll-ups are made anew.
_KEPT = (
    "background_jobs",
    "job_attempts",
    "job_types",
    "job_heartbeats",
    "job_checkpoints",
    "dead_letter_queue",
    "submit_grants",
)


@asynccontextmanager
async def _empty_database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    name = f"empty_{secrets.token_hex(6)}"
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as server:
        await server.execute(f"CREATE DATABASE {name}".encode())
        yield make_conninfo(postgres.url, dbname=name)
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@asynccontextmanager
async def _at_version(
    postgres: EmbeddedPostgres, version: int, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """A database whose schema is of that version, with the functions that it had then.

    Later ones are as a migration leaves them that is killed before its repeatable files.
    """
    numbered = [m for m in migrations() if m.version is not None and m.version <= version]
    async with _empty_database(postgres) as url:
        with monkeypatch.context() as patch:
            patch.setattr("hybridjobs.store.migrate.migrations", lambda: numbered)
            await migrate(url, logins={})
        if version < _FIRST_WITH_STAGES:
            async with await psycopg.AsyncConnection.connect(url) as connection:
                await connection.execute("SET search_path = hybridjobs")
                for name in ("R__functions.sql", "R__storage.sql"):
                    text = resources.files(earlier).joinpath(name).read_text()
                    await connection.execute(text.encode())
        yield url


async def _execute(url: str, *statements: str, **parameters: object) -> None:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("SET search_path = hybridjobs")
        for statement in statements:
            await connection.execute(statement.encode(), parameters or None)


async def _contents(url: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of the tables that are kept, in JSON, in the order of their keys."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        contents = {}
        for table in _KEPT:
            select = f"SELECT to_jsonb(t) FROM hybridjobs.{table} t"
            rows = await (await connection.execute(select.encode())).fetchall()
            contents[table] = sorted((row[0] for row in rows), key=_primary_key)
        return contents


def _primary_key(row: dict[str, Any]) -> list[str]:
    return [str(row.get(name)) for name in ("id", "job_id", "type", "attempt", "role_name")]


async def test_an_empty_database_gets_the_whole_schema(postgres: EmbeddedPostgres) -> None:
    async with _empty_database(postgres) as url:
        assert await migrate(url, logins={}) == [migration.name for migration in migrations()]
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await check(connection)


@pytest.mark.parametrize("version", range(1, required_version()))
async def test_the_rows_of_every_earlier_version_stay_and_run(
    postgres: EmbeddedPostgres, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = dict(zip(_STATES, (new_id() for _ in _STATES), strict=True))
    async with _at_version(postgres, version, monkeypatch) as url:
        await _execute(url, _JOBS, ids=list(ids.values()), states=list(_STATES))
        await _execute(url, _ATTEMPTS, *_OTHERS.split(";"))
        if version >= _FIRST_WITH_STAGES:
            await _execute(url, *_WITH_STAGES.split(";"))
        before = await _contents(url)
        await migrate(url, logins={})
        after = await _contents(url)
        for table, rows in before.items():
            # New columns aside.
            kept = [
                {name: row[name] for name in old}
                for old, row in zip(rows, after[table], strict=True)
            ]
            assert kept == rows
        async with Database(url, size=2) as database:
            await _works_on(Queue(database), ids, version)


async def _works_on(queue: Queue, ids: dict[str, UUID], version: int) -> None:
    with_stages = version >= _FIRST_WITH_STAGES
    expected = {
        "queued": "parked" if with_stages else "ready",
        "later": "scheduled",
        "retrying": "scheduled",
    }
    stages = dict(zip(ids, await queue.stages(list(ids.values())), strict=True))
    assert stages == {**dict.fromkeys(ids), **expected}
    started = set(await queue.claimed())
    assert started == (set() if with_stages else {ids["queued"]})
    assert await queue.end(ids["running"]) is Status.COMPLETED
    assert await queue.end(ids["claimed"], Outcome.PERMANENT) is Status.FAILED
    assert await queue.value("SELECT retry_failed_job(%s)", ids["failed"]) is True
    unresolved = "SELECT original_job_id FROM dead_letter_queue WHERE resolved_at IS NULL"
    assert await queue.value(unresolved) == ids["claimed"]
    for _ in range(10):
        await queue.end_all()
        await queue.execute("UPDATE background_jobs SET run_at = now() WHERE stage = 'scheduled'")
        await queue.claim()
    counts = await queue.rows("SELECT status, count(*) FROM background_jobs GROUP BY status")
    assert {row["status"]: row["count"] for row in counts} == {
        "completed": 7 if with_stages else 6,
        "failed": 1,
        "cancelled": 1,
    }


# An older program at a newer schema


class EarlierProgram:
    """What the program of revision 3c36ce4 says to the database, in its own statements."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def say(self, *statements: str, **parameters: object) -> list[dict[str, Any]]:
        """The statements in one transaction; the last one's rows."""
        async with await psycopg.AsyncConnection.connect(
            self._url, row_factory=dict_row
        ) as connection:
            for statement in statements:
                cursor = await connection.execute(statement.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

    async def enqueue(self, **columns: object) -> UUID:
        job_id = new_id()
        row: dict[str, object] = {
            "id": job_id,
            "type": "test/long",
            "payload": '{"n": 1.0}',
            "source": "api",
            "key": None,
            "priority": 0,
            "max_retries": 1,
            "deadline_seconds": 900,
            "parent_id": None,
            "submitted_by": None,
            "traceparent": None,
            "inngest_event_id": None,
            "lease_seconds": None,
            "type_generation": 1,
            **columns,
        }
        statement = earlier.INSERT if row["lease_seconds"] is None else earlier.INSERT_BEGUN
        await self.say(statement, **{name: [value] for name, value in row.items()})
        return job_id

    async def claim(self) -> list[dict[str, Any]]:
        claimed = await self.say(earlier.CLAIM, types=["test/long"], rooms=[100], limit=100)
        ids = [row["job_id"] for row in claimed]
        return await self.say(
            earlier.CLAIMS, ids=ids, redrive_after=timedelta(seconds=5), limit=100
        )

    async def end(
        self, job_id: UUID, attempt: int, outcome: str, *, follow: str, **columns: object
    ) -> None:
        """As its record_outcome: lock, end the attempt, and what follows for the job."""
        names: dict[str, object] = {
            "job_id": job_id,
            "attempt": attempt,
            "ended_at": None,
            "outcome": outcome,
            "reason": "Reason",
            "category": None if outcome == "succeeded" else "unknown",
            "exit_code": None,
            "message": None,
            "log_tail": None,
            "started_at": None,
            "pod_name": None,
            "spent_retry": follow is earlier.AGAIN,
        }
        [ended] = await self.say(earlier.LOCK, earlier.FREE_RETRIES, earlier.END, **names)
        row = {"error": None, "progress": None, "result": None, "id": new_id(), **columns}
        statements = [follow]
        if columns.get("status") == "failed":
            statements.append(earlier.DEAD_LETTER)
        await self.say(*statements, **{**names, **ended, **row})


@pytest.fixture(params=["newest", "without its functions"])
async def newer(
    request: pytest.FixtureRequest,
    postgres: EmbeddedPostgres,
    database_urls: DatabaseUrls,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[EarlierProgram, Queue]]:
    """The older program, and the newer one's queue, at a newer schema.

    Also between the migration that brought stages and the functions that go with them.
    """
    if request.param == "newest":
        async with Database(database_urls.owner, size=2) as database:
            yield EarlierProgram(database_urls.owner), Queue(database)
        return
    async with _at_version(postgres, 3, monkeypatch) as url:
        numbered = [m for m in migrations() if m.version is not None]
        with monkeypatch.context() as patch:
            patch.setattr("hybridjobs.store.migrate.migrations", lambda: numbered)
            await migrate(url, logins={})
        async with Database(url, size=2) as database:
            yield EarlierProgram(url), Queue(database)


async def _consistent(queue: Queue) -> None:
    wrong = (
        "SELECT id, status, stage, dispatched_at FROM background_jobs WHERE (stage IS NOT NULL) "
        "<> (status = 'queued' AND dispatched_at IS NULL)"
    )
    assert await queue.rows(wrong) == []


async def test_an_older_program_goes_on_at_a_newer_schema(
    newer: tuple[EarlierProgram, Queue],
) -> None:
    program, queue = newer
    await queue.register(job_type())
    job, other, again, lost = [await program.enqueue() for _ in range(4)]
    assert set(await queue.stages([job, other, again, lost])) == {"ready"}
    claimed = await program.claim()
    assert [(row["job_id"], row["attempt"]) for row in claimed] == [
        (each, 1) for each in sorted([job, other, again, lost])
    ]
    await _consistent(queue)
    for each in (job, other, again):
        names = {"job_id": each, "attempt": 1}
        place = {"namespace": "jobs", "name": "a", "uid": "u"}
        assert await program.say(earlier.BIND_HYBRIDJOB, **names, **place)
        await program.say(earlier.DISPATCHED, **names, **place)
        assert await program.say(earlier.BIND_JOB, **names, uid="j")
        started = {"pod_name": "p", "pod_uid": "q", "started_at": "2026-01-01T00:00:00Z"}
        assert await program.say(earlier.START, **names, **started)
        assert await program.say(earlier.BEAT, **names, progress='{"done": 1}')
        assert await program.say(earlier.SAVE_CHECKPOINT, **names, data="{}")
    await _consistent(queue)
    finish, retry = earlier.FINISH, earlier.AGAIN
    await program.end(job, 1, "succeeded", follow=finish, status="completed", result="1")
    await program.end(other, 1, "permanent", follow=finish, status="failed", error="no")
    times = {"run_at": "2026-01-01T00:00:00Z", "order_key": "2026-01-01T00:00:00Z"}
    await program.end(again, 1, "failed", follow=retry, spent=1, **times)
    later = {"run_at": "2100-01-01T00:00:00Z", "order_key": "2100-01-01T00:00:00Z"}
    await program.end(lost, 1, "lost", follow=retry, spent=0, **later)
    await _consistent(queue)
    assert await queue.stages([again, lost]) == ["ready", "scheduled"]
    outcomes = await queue.rows("SELECT outcome, reason FROM job_attempts ORDER BY job_id")
    assert {row["reason"] for row in outcomes} == {"Reason"}
    letters = "SELECT original_job_id FROM dead_letter_queue WHERE resolved_at IS NULL"
    assert await queue.value(letters) == other
    # Its retry, its cancel, its quick jobs, and the newer program beside it.
    assert [row["job_id"] for row in await program.claim()] == [again]
    await program.end(again, 2, "succeeded", follow=finish, status="completed")
    assert await queue.value("SELECT retry_failed_job(%s)", other) is True
    assert await queue.value(
        "SELECT count(*) FROM dead_letter_queue WHERE resolved_at IS NULL"
    ) == (0)
    [claimed_again] = await program.claim()
    assert (claimed_again["job_id"], claimed_again["attempt"]) == (other, 2)
    cancelled = await program.enqueue()
    assert await program.say(earlier.CANCEL_QUEUED, job_id=cancelled, reason="Cancelled")
    quick = await program.enqueue(lease_seconds=10.0)
    assert await program.say(earlier.INLINE_SUCCESS, ids=[quick], results=['{"a": 1}'], logs=[None])
    await _consistent(queue)
    # An application's outbox: the function takes what it took.
    await queue.execute("SELECT submit_job('test/long', '{}', 'key', 5, now(), NULL::uuid)")
    await queue.execute("DELETE FROM background_jobs WHERE source = 'sql'")
    rows = await queue.rows("SELECT id, status, outcome_reason FROM background_jobs")
    assert {row["id"]: row["status"] for row in rows} == {
        job: "completed",
        other: "queued",
        again: "completed",
        lost: "queued",
        cancelled: "cancelled",
        quick: "completed",
    }
    reasons = {row["id"]: row["outcome_reason"] for row in rows}
    assert (reasons[job], reasons[quick]) == ("Reason", "Completed")


async def test_two_programs_claim_side_by_side_and_nothing_twice(
    database_urls: DatabaseUrls,
) -> None:
    program = EarlierProgram(database_urls.owner)
    async with Database(database_urls.owner, size=2) as database:
        queue = Queue(database)
        await queue.register(job_type())
        ids = [await program.enqueue() for _ in range(20)]
        claimed = [*await queue.claimed(window=10)]
        claimed += [row["job_id"] for row in await program.claim()]
        claimed += await queue.claimed()
        assert sorted(claimed) == sorted(ids)
        await program.end(ids[0], 1, "succeeded", follow=earlier.FINISH, status="completed")
        for job_id in ids[1:]:
            assert await queue.end(job_id) is Status.COMPLETED
        await _consistent(queue)
        assert await queue.rows("SELECT FROM job_attempts WHERE ended_at IS NULL") == []
