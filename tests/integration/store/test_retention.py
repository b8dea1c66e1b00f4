"""What retention deletes, and what it leaves alone."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.rows import DictRow

from hybridjobs.errors import ConfigurationError
from hybridjobs.ids import first_id_of, new_id
from hybridjobs.settings import IngressSettings
from hybridjobs.store import attempts, retention
from hybridjobs.store.claim import claim
from hybridjobs.store.database import Database
from hybridjobs.store.retention import Keep, delete_old_rows
from tests.builders import job_type, register
from tests.conftest import DatabaseUrls
from tests.integration.store.history import ended_jobs

_DAY = timedelta(days=1)
_EPOCH = datetime.fromtimestamp(0, UTC)
_LETTER = """
INSERT INTO hybridjobs.dead_letter_queue
    (id, original_job_id, type, payload, error_history, failure_count, error_category,
     first_failed_at, last_failed_at, moved_to_dlq_at, resolved_at)
VALUES (%(id)s, %(job_id)s, 'test/long', '{}', '[]', 1, 'unknown', %(moved_at)s, %(moved_at)s,
        %(moved_at)s, %(resolved_at)s)
"""


async def _left(connection: AsyncConnection[DictRow], table: str = "background_jobs") -> int:
    cursor = await connection.execute(f"SELECT count(*) AS n FROM hybridjobs.{table}".encode())
    [row] = await cursor.fetchall()
    return int(row["n"])


async def _letter(
    connection: AsyncConnection[DictRow],
    job_id: Any,
    *,
    age: timedelta,
    resolved: timedelta | None = None,
) -> None:
    """A dead letter; `resolved` says how long ago."""
    now = datetime.now(UTC)
    parameters = {
        "id": first_id_of(now - age),
        "job_id": job_id,
        "moved_at": now - age,
        "resolved_at": None if resolved is None else now - resolved,
    }
    await connection.execute(_LETTER, parameters)


async def _delivery(connection: AsyncConnection[DictRow], status: str, *, age: timedelta) -> None:
    """A callback's delivery."""
    written = datetime.now(UTC) - age
    await connection.execute(
        "INSERT INTO hybridjobs.callback_deliveries "
        "(id, job_id, type, event, url, secret, body, status) "
        "VALUES (hybridjobs.uuidv7_at(%s), %s, 't', 'job.failed', '', 'default', '{}', %s)",
        [written, new_id(), status],
    )


async def _delete(database: Database, keep: Keep | None = None, batch_rows: int = 10) -> int:
    deleted = await delete_old_rows(
        database, keep or Keep(), batch_rows=batch_rows, pause_seconds=0
    )
    return deleted["background_jobs"]


async def test_each_status_has_its_time(
    database: Database, connection: AsyncConnection[DictRow]
) -> None:
    for status, days in (("completed", 7), ("cancelled", 7), ("failed", 30)):
        await ended_jobs(connection, 15, status=status, ago=days * _DAY - timedelta(hours=1))
        assert await _delete(database) == 0, status
        await ended_jobs(connection, 25, status=status, ago=days * _DAY + timedelta(hours=1))
        assert await _delete(database) == 25, status
    assert await _left(connection) == 45
    assert await _left(connection, "job_attempts") == 45


async def test_a_job_that_is_cancelled_after_a_long_wait_stays_for_its_time(
    database: Database, connection: AsyncConnection[DictRow]
) -> None:
    [awaited, waiting] = await ended_jobs(connection, 2, status="queued", ago=8 * _DAY)
    await connection.execute(
        "INSERT INTO hybridjobs.job_dependencies (job_id, depends_on) VALUES (%s, %s)",
        [waiting, awaited],
    )
    await connection.execute(
        "UPDATE hybridjobs.background_jobs "
        "SET stage = 'blocked', on_dependency_failure = 'cancel' WHERE id = %s",
        [waiting],
    )
    await connection.execute(
        "UPDATE hybridjobs.background_jobs SET status = 'cancelled' WHERE id = %s", [awaited]
    )
    await connection.execute("SELECT hybridjobs.link_dependencies()")
    assert await _delete(database) == 0
    cursor = await connection.execute("SELECT DISTINCT status FROM hybridjobs.background_jobs")
    assert await cursor.fetchall() == [{"status": "cancelled"}]


async def test_a_jobs_other_rows_go_with_it(
    database: Database, connection: AsyncConnection[DictRow]
) -> None:
    [job_id] = await ended_jobs(connection, ago=8 * _DAY)
    await connection.execute("UPDATE hybridjobs.job_attempts SET ended_at = NULL, outcome = NULL")
    await connection.execute(
        "INSERT INTO hybridjobs.job_heartbeats (job_id, attempt) VALUES (%s, 1)", [job_id]
    )
    await attempts.save_checkpoint(connection, job_id, 1, "{}")
    assert await _delete(database) == 1
    for table in ("job_attempts", "job_heartbeats", "job_checkpoints"):
        assert await _left(connection, table) == 0, table


async def test_open_jobs_stay_however_old(
    database: Database, connection: AsyncConnection[DictRow]
) -> None:
    for status in ("queued", "processing"):
        await ended_jobs(connection, status=status, ago=800 * _DAY)
    # Old by its creation, and completed a moment ago.
    await ended_jobs(connection, took=20 * _DAY)
    assert await _delete(database) == 0


async def test_an_unresolved_dead_letter_keeps_its_job(
    database: Database, connection: AsyncConnection[DictRow]
) -> None:
    unresolved, resolved = await ended_jobs(connection, 2, status="failed", ago=31 * _DAY)
    await _letter(connection, unresolved, age=31 * _DAY)
    await _letter(connection, resolved, age=32 * _DAY, resolved=_DAY)
    await _letter(connection, new_id(), age=29 * _DAY)
    assert await _delete(database) == 1
    assert await _left(connection, "dead_letter_queue") == 3
    cursor = await connection.execute("SELECT id FROM hybridjobs.background_jobs")
    assert [row["id"] for row in await cursor.fetchall()] == [unresolved]
    assert await _delete(database, Keep(unresolved=True)) == 1
    assert await _left(connection, "dead_letter_queue") == 2


async def test_the_other_tables_have_their_times(
    database: Database, connection: AsyncConnection[DictRow], database_urls: DatabaseUrls
) -> None:
    for days, resolved in ((501, None), (502, 89 * _DAY), (503, 91 * _DAY)):
        await _letter(connection, new_id(), age=days * _DAY, resolved=resolved)
    await register(
        connection, job_type("test/throttled", throttle={"limit": 9, "periodSeconds": 60})
    )
    await connection.execute(
        "INSERT INTO hybridjobs.throttle_starts "
        "SELECT type, '', now() - ago, gen_random_uuid() FROM "
        "unnest(ARRAY['test/throttled', 'test/throttled', 'test/gone']) WITH ORDINALITY "
        "AS start (type, place) "
        "JOIN (VALUES (1, interval '50 s'), (2, '70 s'), (3, '0 s')) AS t (place, ago) "
        "USING (place)"
    )
    batches = [new_id() for _ in range(3)]
    await connection.execute(
        "INSERT INTO hybridjobs.job_batches (id, source, total, created_at) "
        "SELECT id, 'api', 1, now() - ago FROM unnest(%s::uuid[], %s::interval[]) AS t (id, ago)",
        [batches, [29 * _DAY, 31 * _DAY, 31 * _DAY]],
    )
    await ended_jobs(connection, ago=_DAY)
    await connection.execute("UPDATE hybridjobs.background_jobs SET batch_id = %s", [batches[1]])
    for table, columns, days in (
        ("job_rollups", "'t', 'succeeded', 1, 1, 1, 0, 0, 0", 400),
        ("job_run_times", "'t', 'pod', 1, 1", 35),
        ("job_arrivals", "'t', 1", 400),
    ):
        await connection.execute(
            f"INSERT INTO hybridjobs.{table} SELECT now() - days * interval '1 day', {columns} "
            "FROM generate_series(%s::int, %s::int) AS days".encode(),
            [days - 5, days + 25],
        )
    for days, status in ((29, "failed"), (31, "failed"), (31, "delivered"), (31, "pending")):
        await _delivery(connection, status, age=days * _DAY)
    await connection.execute(
        "INSERT INTO hybridjobs.github_redeliveries (hook, guid, asked_at) "
        "SELECT '/app/hook', ago::text, now() - ago FROM unnest(%s::interval[]) AS ago",
        [[6 * _DAY, 8 * _DAY, 9 * _DAY]],
    )
    async with await AsyncConnection.connect(database_urls.handlers, autocommit=True) as handlers:
        await handlers.execute(
            "INSERT INTO github.sync_logs (id, job_id, sync_type) "
            "SELECT id, gen_random_uuid(), 'capture/repository.sync' FROM unnest(%s::uuid[]) AS id",
            [[first_id_of(datetime.now(UTC) - days * _DAY) for days in (89, 91, 92)]],
        )
    deleted = await delete_old_rows(database, Keep(), batch_rows=10, pause_seconds=0)
    assert deleted == {
        "callback_deliveries": 2,
        "background_jobs": 0,
        "github_redeliveries": 2,
        "dead_letter_queue": 1,
        "job_batches": 1,
        "throttle_starts": 2,
        "job_rollups": 26,
        "job_run_times": 26,
        "job_arrivals": 26,
        "sync_logs": 2,
        "api_tokens": 0,
    }


async def test_a_claim_does_not_wait_and_a_row_that_is_held_is_passed_over(
    database: Database, connection: AsyncConnection[DictRow]
) -> None:
    await register(connection, job_type())
    await connection.execute(
        "INSERT INTO hybridjobs.background_jobs (id, type, created_at) "
        "VALUES (%s, 'test/long', now())",
        [first_id_of(datetime.now(UTC) - 40 * _DAY)],
    )
    held, *_ = await ended_jobs(connection, 3, ago=8 * _DAY)
    async with database.transaction() as other:
        await other.execute(
            "SELECT FROM hybridjobs.background_jobs WHERE id = %s FOR UPDATE", [held]
        )
        assert await _delete(database) == 2
    async with database.transaction() as deleting:
        await deleting.execute("DELETE FROM hybridjobs.background_jobs WHERE status = 'completed'")
        async with asyncio.timeout(30), database.transaction() as claiming:
            assert len(await claim(claiming, window=10)) == 1


async def test_one_replica_at_a_time(
    database: Database, connection: AsyncConnection[DictRow]
) -> None:
    await ended_jobs(connection, ago=8 * _DAY)
    async with database.transaction() as other:
        await other.execute("SELECT pg_advisory_xact_lock(%s)", [0x72657461696E])
        assert await _delete(database) == 0
    assert await _delete(database) == 1


async def test_it_goes_along_the_primary_key(
    connection: AsyncConnection[DictRow], database_urls: DatabaseUrls
) -> None:
    await ended_jobs(connection, 20_000, apart=timedelta(minutes=1))
    async with await AsyncConnection.connect(database_urls.owner, autocommit=True) as owner:
        await owner.execute("ANALYZE hybridjobs.background_jobs")
    parameters = retention._parameters(Keep(), datetime.now(UTC), 1000)
    cursor = await connection.execute(
        f"EXPLAIN {retention._DELETE_JOBS}".encode(), {**parameters, "after": first_id_of(_EPOCH)}
    )
    plan = "\n".join(row["QUERY PLAN"] for row in await cursor.fetchall())
    assert "Index Only Scan using background_jobs_pkey" in plan
    assert "Seq Scan on background_jobs" not in plan


def test_settings_say_how_long_but_never_under_a_week(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDJOBS_DATABASE_URL", "postgresql://a/b")
    assert Keep.of(IngressSettings.load()) == Keep()
    monkeypatch.setenv("HYBRIDJOBS_RETENTION_FAILED_DAYS", "90")
    assert Keep.of(IngressSettings.load()) == Keep(failed=90 * _DAY)
    monkeypatch.setenv("HYBRIDJOBS_RETENTION_FAILED_DAYS", "6")
    with pytest.raises(ConfigurationError, match="HYBRIDJOBS_RETENTION_FAILED_DAYS"):
        IngressSettings.load()


async def test_tokens_stay_for_a_while_after_their_end(
    database: Database, connection: AsyncConnection[DictRow]
) -> None:
    for column in ("revoked_at", "expires_at"):
        for days in (-1, 89, 91):
            await connection.execute(
                f"INSERT INTO hybridjobs.api_tokens (id, name, scope, digest, hint, created_by, "
                f"{column}) VALUES (%s, 'ci', 'read', sha256(random()::text::bytea), 'hj_', 'ana', "
                "now() - make_interval(days => %s))".encode(),
                [new_id(), days],
            )
    await connection.execute(
        "INSERT INTO hybridjobs.api_tokens (id, name, scope, digest, hint, created_by) "
        "VALUES (%s, 'ci', 'read', sha256('x'), 'hj_', 'ana')",
        [new_id()],
    )
    await _delete(database)
    assert await _left(connection, "api_tokens") == 5
