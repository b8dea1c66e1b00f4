"""The plans of the queue's hot statements: by an index, whatever waits or has ended.

Every statement that the store's functions send is explained as it is sent, by its values and as
the generic plan that a prepared statement comes to. The rows are made by SQL, once; with
HYBRIDJOBS_TEST_PLANS=full there are as many as `make bench-plans` asks for.
"""

import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import psycopg
import pytest
from psycopg.adapt import Transformer
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row

from hybridjobs.ids import new_id
from hybridjobs.model import AttemptEnd, Callback, Claim, Outcome, Progress
from hybridjobs.store import attempts
from hybridjobs.store.callbacks import (
    DeliveryStatus,
    Tried,
    claim_deliveries,
    record_try,
    redeliver,
)
from hybridjobs.store.claim import claim
from hybridjobs.store.embedded import EmbeddedPostgres
from hybridjobs.store.enqueue import insert_jobs, unknown_jobs
from hybridjobs.store.heartbeats import Beat, record_beats
from hybridjobs.store.outcome import Report, record_outcomes
from hybridjobs.store.resources import mark_dispatched
from hybridjobs.store.tree import get_tree
from tests.builders import job_type, new_job, register


@dataclass(frozen=True)
class Rows:
    """How many jobs wait in line, wait behind one full key, and are over."""

    queued: int
    blocked: int
    ended: int


_ROWS = {
    "test": Rows(queued=200_000, blocked=100_000, ended=100_000),
    "full": Rows(queued=1_000_000, blocked=1_000_000, ended=10_000_000),
}
_SCALE = os.environ.get("HYBRIDJOBS_TEST_PLANS", "test")
ROWS = _ROWS[_SCALE]

pytestmark = pytest.mark.timeout(300 if _SCALE == "test" else 7200)

_TABLES = {"background_jobs", "job_attempts", "callback_deliveries"}
_QUEUED = """
INSERT INTO hybridjobs.background_jobs
    (id, type, payload, source, key, created_at, run_at, order_key, concurrency_key, stage)
SELECT hybridjobs.uuidv7_at(due), %(type)s, '{"repo": "busy"}', 'sql', %(key)s || n, due, due, due,
       %(concurrency_key)s::text, %(stage)s
FROM (SELECT n, now() - make_interval(secs => n) + %(ahead)s AS due
      FROM generate_series(1, %(count)s) AS n) AS made
"""
_ENDED = """
WITH job AS (
    INSERT INTO hybridjobs.background_jobs
        (id, type, source, key, created_at, status, stage, attempt, started_at, completed_at)
    SELECT hybridjobs.uuidv7_at(began), 'test/long', 'sql', 'past-' || n, began, 'completed', NULL,
           1, began, began + interval '1 s'
    FROM (SELECT n, now() - make_interval(days => 2, secs => n * 0.05) AS began
          FROM generate_series(1, %s::int) AS n) AS made
    RETURNING id, started_at, completed_at
)
INSERT INTO hybridjobs.job_attempts
    (job_id, attempt, runner, deadline_seconds, claimed_at, started_at, ended_at, outcome, reason,
     spent_retry)
SELECT id, 1, 'pod', 900, started_at, started_at, completed_at, 'succeeded', 'Completed', false
FROM job
"""


@dataclass(frozen=True)
class Plan:
    """A statement's plan; `generic`: that of any values."""

    statement: str
    generic: bool
    nodes: list[dict[str, Any]] = field(repr=False)

    @property
    def scanned(self) -> set[str]:
        """The tables it reads from end to end."""
        return {node["Relation Name"] for node in self.nodes if node["Node Type"] == "Seq Scan"}

    @property
    def indexes(self) -> set[str]:
        return {node["Index Name"] for node in self.nodes if "Index Name" in node}


class Explained(psycopg.AsyncConnection[DictRow]):
    """A connection that notes the plans of what it executes."""

    plans: list[Plan]

    @classmethod
    async def to(cls, url: str) -> Self:
        connection = await cls.connect(url, autocommit=True, row_factory=dict_row)
        connection.plans = []
        return connection

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        text = query.decode() if isinstance(query, bytes) else str(query)
        if any(f"hybridjobs.{table}" in text for table in _TABLES):
            cursor = await super().execute(f"EXPLAIN (FORMAT JSON) {text}".encode(), params)
            self._note(text, await cursor.fetchall(), generic=False)
            await self._generic(text, params)
        return await super().execute(query, params, **options)

    async def _generic(self, text: str, params: Any) -> None:
        sent = psycopg._queries.PostgresQuery(Transformer.from_context(self))
        sent.convert(text, params)
        names = [await self._type_name(oid) for oid in sent.types]
        await super().execute("SET plan_cache_mode = force_generic_plan")
        of = f"({', '.join(names)})" if names else ""
        await super().execute(f"PREPARE explained {of} AS ".encode() + sent.query)
        values = f"({', '.join(['NULL'] * len(names))})" if names else ""
        cursor = await super().execute(f"EXPLAIN (FORMAT JSON) EXECUTE explained{values}".encode())
        self._note(text, await cursor.fetchall(), generic=True)
        await super().execute("DEALLOCATE explained")
        await super().execute("SET plan_cache_mode = auto")

    async def _type_name(self, oid: int) -> str:
        if not oid:
            return "unknown"
        cursor = await super().execute("SELECT %s::regtype::text AS name", [oid])
        [row] = await cursor.fetchall()
        return str(row["name"])

    def _note(self, text: str, rows: list[DictRow], *, generic: bool) -> None:
        [row] = rows
        plan = row["QUERY PLAN"]
        [explained] = json.loads(plan) if isinstance(plan, str) else plan
        self.plans.append(Plan(text, generic, list(_nodes(explained["Plan"]))))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _nodes(child)


@pytest.fixture(scope="module")
async def url(postgres: EmbeddedPostgres, _template: str) -> AsyncIterator[str]:
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as admin:
        await admin.execute(f"CREATE DATABASE plans TEMPLATE {_template}".encode())
        owner = make_conninfo(postgres.url, dbname="plans")
        async with await Explained.to(owner) as connection:
            await _fill(connection)
        yield owner
        await admin.execute("DROP DATABASE plans WITH (FORCE)")


async def _fill(connection: Explained) -> None:
    plain = psycopg.AsyncConnection.execute
    keyed = job_type("test/keyed", concurrency={"limit": 1, "key": "repo"})
    await register(connection, job_type(), keyed)
    rows: dict[str, Any] = {
        "type": "test/long",
        "key": "q",
        "concurrency_key": None,
        "stage": "ready",
        "ahead": timedelta(0),
        "count": ROWS.queued,
    }
    await plain(connection, _QUEUED, rows)
    await plain(
        connection,
        _QUEUED,
        {**rows, "ahead": timedelta(days=9), "key": "s", "count": 500, "stage": "scheduled"},
    )
    # Neither triggers nor foreign keys have anything to say about rows that fit.
    await plain(connection, "SET session_replication_role = replica")
    await plain(connection, _ENDED, [ROWS.ended])
    await plain(connection, "RESET session_replication_role")
    # The full key's one place is taken, and its first claim finds the others.
    await insert_jobs(
        connection, [new_job("test/keyed", payload='{"repo": "busy"}', key_path="repo")]
    )
    async with connection.transaction():
        assert len(await claim(connection, window=2)) == 2
    blocked = {**rows, "type": "test/keyed", "key": "b", "concurrency_key": "busy"}
    await plain(connection, _QUEUED, {**blocked, "count": ROWS.blocked})
    await plain(connection, "ANALYZE")


@pytest.fixture
async def connection(url: str) -> AsyncIterator[Explained]:
    """Inside a transaction that is undone."""
    async with (
        await Explained.to(url) as connection,
        connection.transaction(force_rollback=True),
    ):
        yield connection


async def _claimed(connection: Explained, count: int = 4) -> list[Claim]:
    claims = await claim(connection, window=1000)
    assert len(claims) >= count
    return claims[:count]


def _check(connection: Explained) -> None:
    """No table from end to end, and every table by an index."""
    assert connection.plans
    for plan in connection.plans:
        assert not plan.scanned & _TABLES, f"generic: {plan.generic}\n{plan.statement}"
        read = {
            node["Relation Name"]
            for node in plan.nodes
            if node["Node Type"].endswith("Scan") and "Relation Name" in node
        }
        assert plan.indexes or not read & _TABLES, plan.statement


def _indexes(connection: Explained, part: str) -> set[str]:
    """Those of every plan of the statements that contain `part`, by values and generic."""
    plans = [plan for plan in connection.plans if part in plan.statement]
    assert plans, f"nothing contains {part}"
    return set.intersection(*(plan.indexes for plan in plans))


async def test_claim(connection: Explained) -> None:
    await _claimed(connection)
    _check(connection)
    assert "background_jobs_scheduled" in _indexes(connection, "stage = 'scheduled' AND run_at")
    assert _indexes(connection, "CROSS JOIN LATERAL (\n    SELECT id, type, order_key") >= {
        "background_jobs_ready",
        "background_jobs_parked",
    }
    assert "job_attempts_open" in _indexes(connection, "AS pods")
    assert "background_jobs_pkey" in _indexes(connection, "SET attempt = job.attempt + 1")


async def test_claim_with_a_full_key_that_holds_a_hundred_thousand(connection: Explained) -> None:
    for _ in range(3):
        await claim(connection, window=1000)
    _check(connection)
    assert "background_jobs_ready" in _indexes(connection, "SET stage = 'parked'")


async def test_enqueue(connection: Explained) -> None:
    jobs = [new_job(key=f"new-{n}") for n in range(64)]
    await insert_jobs(connection, jobs)
    await insert_jobs(connection, jobs)  # found again, by (source, key, type)
    once = [new_job(key=f"once-{n}", request_digest=b"d") for n in range(64)]
    await insert_jobs(connection, once)
    await insert_jobs(connection, [job._replace(id=new_id()) for job in once])  # by (source, key)
    waits = new_job(key="k", unique_key="u", depends_on=(jobs[0].id,))
    soon = new_job(run_at=datetime.now(UTC) + timedelta(hours=1))
    leased = new_job(lease_seconds=10.0)
    keyed = new_job("test/keyed", payload='{"repo": "busy"}', key_path="repo")
    told = new_job(callbacks=(Callback(url="https://receiver.example"),))
    await insert_jobs(connection, [waits, soon, leased, keyed, told])
    await unknown_jobs(connection, [jobs[0].id, new_id()])
    _check(connection)
    assert _indexes(connection, "SELECT DISTINCT ON (input.place)") >= {
        "background_jobs_pkey",
        "background_jobs_key",
        "background_jobs_request",
        "background_jobs_unique",
    }


async def test_callbacks(connection: Explained) -> None:
    """However many wait for one receiver, or have arrived."""
    await connection.execute(
        "INSERT INTO hybridjobs.callback_deliveries "
        "(id, job_id, type, event, url, secret, body, status, next_at) "
        "SELECT hybridjobs.uuidv7_at(now()), gen_random_uuid(), 't', 'job.failed', "
        "'https://' || (CASE WHEN n % 2 = 0 THEN 'slow' ELSE 'r' || n % 40 END), 'default', '{}', "
        "CASE WHEN n % 2 = 0 THEN 'pending' ELSE 'delivered' END, now() - n * interval '1 s' "
        "FROM generate_series(1, 40000) AS n"
    )
    await connection.execute("ANALYZE")
    connection.plans.clear()
    due = await claim_deliveries(
        connection, sends={"slow": 1}, per_host=4, limit=32, lease=timedelta(seconds=60)
    )
    assert len(due) == 3
    tried = Tried(DeliveryStatus.DELIVERED, datetime.now(UTC), 5, 200)
    assert await record_try(connection, due[0], tried)
    assert await redeliver(connection, due[0].id)
    assert len(connection.plans) == 6
    assert not any("callback_deliveries" in plan.scanned for plan in connection.plans)
    assert "callback_deliveries_due" in _indexes(connection, "RECURSIVE line")


async def test_tree(connection: Explained) -> None:
    [root] = await _claimed(connection, 1)
    children = [new_job(parent_id=root.job_id) for _ in range(64)]
    await insert_jobs(connection, children)
    await insert_jobs(connection, [new_job(parent_id=children[0].id)])
    connection.plans.clear()
    found = await get_tree(connection, root.job_id)
    assert found is not None
    assert found.total == 65
    _check(connection)
    indexes = _indexes(connection, "RECURSIVE tree")
    assert indexes >= {"background_jobs_parent", "background_jobs_pkey"}


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.DISRUPTED])
async def test_outcomes(connection: Explained, outcome: Outcome) -> None:
    claims = await _claimed(connection, 64)
    connection.plans.clear()
    reports = [Report(each.job_id, each.attempt, AttemptEnd(outcome, "Test")) for each in claims]
    await record_outcomes(connection, reports)
    await record_outcomes(connection, reports[:1])  # a late one, which adds evidence
    _check(connection)
    assert "background_jobs_pkey" in _indexes(connection, "FOR UPDATE OF job")
    assert "job_attempts_pkey" in _indexes(connection, "UPDATE hybridjobs.job_attempts attempt")
    assert not any("job_attempts_open" in plan.indexes for plan in connection.plans)


async def test_attempts(connection: Explained) -> None:
    [one] = await _claimed(connection, 1)
    connection.plans.clear()
    job, number = one.job_id, one.attempt
    await mark_dispatched(connection, one, namespace="jobs", name="a", uid="u")
    await attempts.bind_hybridjob(connection, job, number, namespace="jobs", name="a", uid="u")
    await attempts.bind_kubernetes_job(connection, job, number, "k")
    now = datetime.now(UTC)
    await attempts.start(connection, job, number, pod_name="p", pod_uid="p", started_at=now)
    await record_beats(connection, [Beat(job, number, Progress(1, 2))])
    await attempts.save_checkpoint(connection, job, number, "{}")
    await attempts.payload_of(connection, job, number)
    await attempts.report_failure(
        connection, job, number, error="e", permanent=False, retry_after_seconds=None
    )
    await attempts.read_job(connection, job)
    await attempts.statuses(connection, [job])
    await attempts.expired_leases(connection)
    await attempts.open_dispatches(connection, settled=timedelta(seconds=5))
    _check(connection)
