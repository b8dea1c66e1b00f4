"""Whatever happens in whatever order, the queue's invariants hold, and no job is ever lost.

A random program of submissions, claims, reports, commands, hand-written updates and crashes runs
against a real database; after each step SQL looks for anything that must not be.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hybridjobs.errors import AttemptClosed
from hybridjobs.ids import new_id
from hybridjobs.model import AttemptEnd, NewJob, Outcome
from hybridjobs.store import attempts
from hybridjobs.store.claim import claim, claim_inline
from hybridjobs.store.database import Database
from hybridjobs.store.heartbeats import Beat, record_beats
from hybridjobs.store.outcome import record_outcome
from tests.builders import job_type, new_job
from tests.conftest import DatabaseUrls
from tests.integration.store.scene import Queue

Value = TypeVar("Value")

_RETRY = {"limit": 1, "baseSeconds": 30}
_TYPES = [
    job_type("m/plain", retry=_RETRY),
    job_type("m/limited", retry=_RETRY, concurrency={"limit": 2}),
    job_type("m/keyed", retry=_RETRY, concurrency={"limit": 2, "key": "k"}),
    job_type("m/throttled", retry=_RETRY, throttle={"limit": 2, "periodSeconds": 60}),
    job_type(
        "m/both",
        retry=_RETRY,
        concurrency={"limit": 2, "key": "k"},
        throttle={"limit": 3, "periodSeconds": 60, "key": "k"},
    ),
]
_BY_NAME = {each.spec.type: each for each in _TYPES}
_EMPTY = """
TRUNCATE hybridjobs.background_jobs, hybridjobs.job_attempts, hybridjobs.job_heartbeats,
    hybridjobs.job_checkpoints, hybridjobs.dead_letter_queue, hybridjobs.parked_keys,
    hybridjobs.throttle_starts, hybridjobs.job_dependencies, hybridjobs.job_batches,
    hybridjobs.inngest_endings
"""
# What must not be: a name for each, and the row or key it is about.
_VIOLATIONS = """
SELECT 'two open attempts' AS violation, job_id::text AS subject
FROM job_attempts WHERE ended_at IS NULL GROUP BY job_id HAVING count(*) > 1
UNION ALL
SELECT 'attempts do not count up to the last', j.id::text
FROM background_jobs j LEFT JOIN job_attempts a ON a.job_id = j.id
GROUP BY j.id HAVING j.attempt <> count(a.attempt) OR j.attempt <> coalesce(max(a.attempt), 0)
UNION ALL
SELECT 'only the last attempt may be open', a.job_id::text
FROM job_attempts a JOIN background_jobs j ON j.id = a.job_id
WHERE a.ended_at IS NULL AND a.attempt <> j.attempt
UNION ALL
SELECT 'dispatched and an open attempt go together', j.id::text FROM background_jobs j
WHERE (j.dispatched_at IS NOT NULL)
      <> EXISTS (SELECT FROM job_attempts a WHERE a.job_id = j.id AND a.ended_at IS NULL)
UNION ALL
SELECT 'an open attempt of a job that is over', j.id::text FROM background_jobs j
WHERE j.status IN ('completed', 'failed', 'cancelled')
  AND EXISTS (SELECT FROM job_attempts a WHERE a.job_id = j.id AND a.ended_at IS NULL)
UNION ALL
SELECT 'processing without an open attempt', j.id::text FROM background_jobs j
WHERE j.status = 'processing'
  AND NOT EXISTS (SELECT FROM job_attempts a WHERE a.job_id = j.id AND a.ended_at IS NULL)
UNION ALL
SELECT 'a stage is that of queued rows that are not dispatched', id::text FROM background_jobs
WHERE (stage IS NOT NULL) <> (status = 'queued' AND dispatched_at IS NULL)
UNION ALL
SELECT 'ready before its time', id::text FROM background_jobs
WHERE stage = 'ready' AND run_at > now()
UNION ALL
SELECT 'no time of its end', id::text FROM background_jobs
WHERE status = 'completed' AND completed_at IS NULL OR status = 'failed' AND failed_at IS NULL
UNION ALL
SELECT 'over the type''s limit', j.type
FROM job_attempts a JOIN background_jobs j ON j.id = a.job_id
WHERE a.ended_at IS NULL AND j.type = 'm/limited' GROUP BY j.type HAVING count(*) > 2
UNION ALL
SELECT 'over the key''s limit', concat(j.type, ' ', j.concurrency_key)
FROM job_attempts a JOIN background_jobs j ON j.id = a.job_id
WHERE a.ended_at IS NULL AND j.type IN ('m/keyed', 'm/both')
GROUP BY j.type, coalesce(j.concurrency_key, ''), j.concurrency_key HAVING count(*) > 2
UNION ALL
SELECT 'over the throttle', concat(j.type, ' ', j.concurrency_key)
FROM job_attempts a JOIN background_jobs j ON j.id = a.job_id
JOIN LATERAL (
    SELECT count(*) AS starts FROM job_attempts b JOIN background_jobs i ON i.id = b.job_id
    WHERE i.type = j.type
      AND (j.type = 'm/throttled' OR i.concurrency_key = j.concurrency_key)
      AND b.claimed_at > a.claimed_at - interval '60 seconds' AND b.claimed_at <= a.claimed_at
) window_ ON window_.starts > CASE j.type WHEN 'm/throttled' THEN 2 ELSE 3 END
WHERE j.type IN ('m/throttled', 'm/both')
UNION ALL
SELECT 'two open jobs with one unique key', concat(type, ' ', unique_key) FROM background_jobs
WHERE unique_key IS NOT NULL AND status IN ('queued', 'processing')
GROUP BY type, unique_key HAVING count(*) > 1
UNION ALL
SELECT 'parked behind a key that nobody looks at', j.id::text FROM background_jobs j
WHERE j.stage = 'parked'
  AND NOT EXISTS (SELECT FROM parked_keys p
                  WHERE p.type = j.type AND p.concurrency_key = j.concurrency_key)
UNION ALL
SELECT 'blocked by nothing', j.id::text FROM background_jobs j
WHERE j.stage = 'blocked' AND NOT EXISTS (SELECT FROM job_dependencies d WHERE d.job_id = j.id)
UNION ALL
SELECT 'waits, but is not blocked', d.job_id::text
FROM job_dependencies d JOIN background_jobs j ON j.id = d.job_id
WHERE j.stage IS DISTINCT FROM 'blocked'
UNION ALL
SELECT 'linked to one that does not know', d.job_id::text
FROM job_dependencies d LEFT JOIN background_jobs j ON j.id = d.depends_on
WHERE d.linked AND j.has_dependents IS NOT TRUE
UNION ALL
SELECT 'a failed job has one open dead letter', j.id::text
FROM background_jobs j LEFT JOIN LATERAL (
    SELECT count(*) FILTER (WHERE d.resolved_at IS NULL) AS unresolved,
           (array_agg(d.resolution_notes ORDER BY d.id DESC))[1] AS last_notes
    FROM dead_letter_queue d WHERE d.original_job_id = j.id) letters ON true
WHERE j.status = 'failed'
  AND letters.unresolved <> 1 AND letters.last_notes IS DISTINCT FROM 'closed by the test'
UNION ALL
SELECT 'a dead letter of a job that has not failed', d.id::text
FROM dead_letter_queue d JOIN background_jobs j ON j.id = d.original_job_id
WHERE d.resolved_at IS NULL AND j.status <> 'failed'
"""
_UNRELEASED = """
SELECT j.id FROM background_jobs j
WHERE j.stage = 'blocked'
  AND NOT EXISTS (SELECT FROM job_dependencies d JOIN background_jobs o ON o.id = d.depends_on
                  WHERE d.job_id = j.id AND o.status <> 'completed')
"""

_picks = st.integers(0, 1000)
_keys = st.sampled_from(["a", "b", None])
_types = st.sampled_from(sorted(_BY_NAME))


class QueueMachine(RuleBasedStateMachine):
    """`jobs` are the rows that must be there; `ended` the attempts that have, as they ended."""

    url: ClassVar[str]
    loop: ClassVar[asyncio.AbstractEventLoop]
    database: ClassVar[Database]

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue(self.database)
        self.jobs: list[UUID] = []
        self.attempts: list[tuple[UUID, int]] = []
        self.ended: dict[tuple[UUID, int], tuple[str, datetime]] = {}
        self.retried: Counter[UUID] = Counter()
        self._run(self._begin())

    def _run(self, coroutine: Coroutine[Any, Any, Value]) -> Value:
        return self.loop.run_until_complete(coroutine)

    async def _begin(self) -> None:
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as owner:
            await owner.execute(_EMPTY)
        await self._resume()

    async def _resume(self) -> None:
        await self.queue.execute("SELECT resume_queue(), count(resume_type(type)) FROM job_types")

    def _job(self, pick: int) -> UUID:
        return self.jobs[pick % len(self.jobs)]

    # Submissions

    def _new(self, type_: str, key: str | None, **fields: Any) -> NewJob:
        spec = _BY_NAME[type_].spec
        return new_job(
            type_,
            payload=json.dumps({} if key is None else {"k": key}),
            key_path=spec.key_path,
            max_retries=spec.retry.limit,
            **fields,
        )

    def _enqueue(self, *jobs: NewJob) -> None:
        ids = self._run(self.queue.enqueue(*jobs))
        self.jobs += [job_id for job_id in dict.fromkeys(ids) if job_id not in self.jobs]

    @initialize()
    def some_of_each_type_and_key(self) -> None:
        for type_ in _BY_NAME:
            self._enqueue(*(self._new(type_, key) for key in "aaabb"))

    @rule(
        how=st.sampled_from(["plain", "urgent", "many", "later", "chain", "begun", "by SQL"]),
        type_=_types,
        key=_keys,
    )
    def submit(self, how: str, type_: str, key: str | None) -> None:
        match how:
            case "plain":
                self._enqueue(self._new(type_, key))
            case "urgent":
                self._enqueue(self._new(type_, key, priority=5))
            case "many":
                self._enqueue(*(self._new(type_, key) for _ in range(6)))
            case "later":
                run_at = datetime.now(UTC) + timedelta(seconds=100)
                self._enqueue(self._new(type_, key, run_at=run_at))
            case "chain":
                batch = new_id()
                first = self._new(type_, key, batch_id=batch)
                second = self._new(type_, key, batch_id=batch, depends_on=(first.id,))
                third = self._new(type_, key, batch_id=batch, depends_on=(first.id, second.id))
                self._enqueue(first, second, third)
            case "begun":
                job = self._new("m/plain", key, lease_seconds=10.0)
                self._enqueue(job)
                self.attempts.append((job.id, 1))
            case "by SQL":
                payload = json.dumps({} if key is None else {"k": key})
                submitted = self.queue.value("SELECT submit_job(%s, %s::jsonb)", type_, payload)
                self.jobs.append(self._run(submitted))

    @rule(type_=_types, key=_keys, while_=st.sampled_from(["queued", "open"]), unique=_keys)
    def submit_unique(self, type_: str, key: str | None, while_: Any, unique: str | None) -> None:
        self._enqueue(self._new(type_, key, unique_key=unique or "x", unique_while=while_))

    @precondition(lambda self: self.jobs)
    @rule(
        type_=_types,
        key=_keys,
        picks=st.lists(_picks, min_size=1, max_size=3),
        on_failure=st.sampled_from(["cancel", "run"]),
    )
    def submit_dependent(
        self, type_: str, key: str | None, picks: list[int], on_failure: Any
    ) -> None:
        awaited = tuple({self._job(pick) for pick in picks})
        job = self._new(type_, key, depends_on=awaited, on_dependency_failure=on_failure)
        self._enqueue(job)

    # Running

    def _attempt(self, pick: int, *, late: bool) -> tuple[UUID, int] | None:
        """Any attempt there was, or one that is open."""
        those = [each for each in self.attempts if late or each not in self.ended]
        return those[pick % len(those)] if those else None

    @rule(window=st.sampled_from([2, 6, 100, 100]), seconds=st.sampled_from([0, 0, 6, 45, 61, 120]))
    def claim(self, window: int, seconds: int) -> None:
        self._run(self.queue.pass_time(timedelta(seconds=seconds)))
        for each in self._run(self.queue.claim(window=window)):
            if (each.job_id, each.attempt) not in self.attempts:
                self.attempts.append((each.job_id, each.attempt))
        if not self._run(self.queue.value("SELECT link_dependencies()")):
            assert self._run(self.queue.rows(_UNRELEASED)) == []

    @precondition(lambda self: self.jobs)
    @rule(pick=_picks)
    def claim_inline(self, pick: int) -> None:
        job_id = self._job(pick)

        async def claim_it() -> bool:
            async with self.database.transaction() as connection:
                return await claim_inline(connection, job_id, lease_seconds=10)

        if self._run(claim_it()):
            self.attempts.append((job_id, self._run(self.queue.job(job_id))["attempt"]))

    @rule(pick=_picks, late=st.booleans())
    def start_and_beat(self, pick: int, late: bool) -> None:
        if found := self._attempt(pick, late=late):
            is_open = self._run(self._start_and_beat(*found))
            assert is_open == (found not in self.ended)

    async def _start_and_beat(self, job_id: UUID, attempt: int) -> bool:
        async with self.database.connection() as connection:
            [heard] = await record_beats(connection, [Beat(job_id, attempt)])
            try:
                await attempts.start(
                    connection,
                    job_id,
                    attempt,
                    pod_name="p",
                    pod_uid="u",
                    started_at=datetime.now(UTC),
                )
            except AttemptClosed:
                assert heard is None
        return heard is not None

    @rule(
        pick=_picks,
        late=st.booleans(),
        outcome=st.sampled_from(Outcome),
        after=st.sampled_from([None, 0.0, 90.0]),
    )
    def report(self, pick: int, late: bool, outcome: Outcome, after: float | None) -> None:
        if found := self._attempt(pick, late=late):
            job_id, attempt = found
            end = self.queue.end(job_id, outcome, attempt=attempt, retry_after_seconds=after)
            self._run(end)

    @rule()
    def succeed_all(self) -> None:
        self._run(self.queue.end_all())

    # Commands and hands

    @precondition(lambda self: self.jobs)
    @rule(
        pick=_picks,
        what=st.sampled_from(
            ["retry", "cancel", "delete", "failed", "queued", "completed", "cancelled"]
        ),
    )
    def command(self, pick: int, what: str) -> None:
        job_id = self._job(pick)
        match what:
            case "retry":
                if self._run(self.queue.value("SELECT retry_failed_job(%s)", job_id)):
                    self.retried[job_id] += 1
            case "cancel":
                self._run(self.queue.value("SELECT cancel_job(%s)", job_id))
            case "delete":
                self._run(self._delete(job_id))
            case status:
                update = "UPDATE background_jobs SET status = %s WHERE id = %s"
                # Another job may have the unique key by now: there is nothing to be had by hand.
                with contextlib.suppress(psycopg.errors.UniqueViolation):
                    self._run(self.queue.execute(update, status, job_id))

    async def _delete(self, job_id: UUID) -> None:
        """One that has never begun: who deletes a running job deletes its limits' memory."""
        delete = "DELETE FROM background_jobs WHERE id = %s AND attempt = 0 RETURNING id"
        if await self.queue.rows(delete, job_id):
            self.jobs.remove(job_id)
            self.retried.pop(job_id, None)
            forget = "DELETE FROM dead_letter_queue WHERE original_job_id = %s"
            await self.queue.execute(forget, job_id)

    @rule(rate=st.sampled_from([0.1, 1000]))
    def redrive(self, rate: float) -> None:
        redrive = "SELECT redrive_dead_letters(per_second => %s::numeric) AS id"
        for row in self._run(self.queue.rows(redrive, rate)):
            self.retried[row["id"]] += 1

    @rule()
    def resolve(self) -> None:
        resolve = (
            "SELECT resolve_dead_letter(id, 'closed by the test') FROM dead_letter_queue "
            "WHERE resolved_at IS NULL ORDER BY id LIMIT 1"
        )
        self._run(self.queue.execute(resolve))

    @rule(type_=_types | st.none())
    def claim_while_paused(self, type_: str | None) -> None:
        """Of the type, or of all, nothing starts meanwhile."""
        pause = "SELECT pause_queue()" if type_ is None else f"SELECT pause_type('{type_}')"
        begun = (
            "SELECT count(*) FROM job_attempts a JOIN background_jobs j ON j.id = a.job_id "
            "WHERE %s::text IS NULL OR type = %s"
        )
        self._run(self.queue.execute(pause))
        before = self._run(self.queue.value(begun, type_, type_))
        self.claim(window=100, seconds=0)
        assert self._run(self.queue.value(begun, type_, type_)) == before
        self._run(self._resume())

    # Crashes

    @rule(kill=st.booleans())
    def crash_in_a_claim(self, kill: bool) -> None:
        self._run(self._abandoned(kill, None))

    @rule(pick=_picks, outcome=st.sampled_from(Outcome), kill=st.booleans())
    def crash_in_a_report(self, pick: int, outcome: Outcome, kill: bool) -> None:
        if found := self._attempt(pick, late=False):
            self._run(self._abandoned(kill, (*found, AttemptEnd(outcome, "Crashed"))))

    async def _abandoned(self, kill: bool, report: tuple[UUID, int, AttemptEnd] | None) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self.url, row_factory=psycopg.rows.dict_row
        )
        if report is None:
            await claim(connection, window=100)
        else:
            await record_outcome(connection, *report)
        if kill:
            pid = connection.info.backend_pid
            await self.queue.execute("SELECT pg_terminate_backend(%s, 5000)", pid)
            with contextlib.suppress(psycopg.OperationalError):
                await connection.commit()
        await connection.close()

    # What must hold

    @invariant()
    def nothing_is_that_must_not_be(self) -> None:
        assert self._run(self.queue.rows(_VIOLATIONS)) == []

    @invariant()
    def every_row_is_there_and_counts_its_retries(self) -> None:
        counts = (
            "SELECT id, retry_count - (SELECT count(*) FROM job_attempts a "
            "WHERE a.job_id = j.id AND a.spent_retry) AS by_hand FROM background_jobs j"
        )
        by_hand = {row["id"]: row["by_hand"] for row in self._run(self.queue.rows(counts))}
        assert by_hand == {job_id: self.retried[job_id] for job_id in self.jobs}

    @invariant()
    def an_attempt_ends_once(self) -> None:
        ends = (
            "SELECT job_id, attempt, outcome, ended_at FROM job_attempts WHERE ended_at IS NOT NULL"
        )
        now = {
            (row["job_id"], row["attempt"]): (row["outcome"], row["ended_at"])
            for row in self._run(self.queue.rows(ends))
        }
        assert self.ended.items() <= now.items()
        self.ended = now

    def teardown(self) -> None:
        if self.jobs:
            self._run(self._drain())

    async def _drain(self) -> None:
        await self._resume()
        left = (
            "SELECT id, status, stage FROM background_jobs WHERE status IN ('queued', 'processing')"
        )
        for _ in range(100):
            await self.queue.claim()
            await self.queue.end_all()
            await self.queue.pass_time(timedelta(days=8))
            rows = await self.queue.rows(left)
            if not rows:
                return
        pytest.fail(f"never to run: {rows}")


@pytest.mark.timeout(240)
def test_the_invariants_hold_whatever_happens(database_urls: DatabaseUrls) -> None:
    loop = asyncio.new_event_loop()
    database = Database(database_urls.owner, size=2)
    QueueMachine.url, QueueMachine.loop, QueueMachine.database = database_urls.owner, loop, database
    try:
        loop.run_until_complete(database.__aenter__())
        loop.run_until_complete(Queue(database).register(*_TYPES))
        run_state_machine_as_test(
            QueueMachine,
            settings=settings(
                max_examples=30,
                stateful_step_count=40,
                deadline=None,
                phases=[Phase.explicit, Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )
    finally:
        loop.run_until_complete(database.__aexit__(None, None, None))
        loop.close()
