"""The tables in memory do what Postgres does: both are driven alike and compared at each step."""

from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any
from unittest.mock import patch
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from hybridjobs import policy
from hybridjobs.errors import AttemptClosed
from hybridjobs.ids import derived_id
from hybridjobs.model import AttemptEnd, Claim, NewJob, Outcome
from hybridjobs.store import attempts, outcome, resources, restored
from hybridjobs.store.claim import claim
from hybridjobs.store.enqueue import insert_jobs
from hybridjobs.store.jobs import _RETRY
from hybridjobs.store.types import delete_other_types, delete_type, upsert_type
from tests.conftest import DatabaseUrls
from tests.simulation.definitions import TYPES
from tests.simulation.processes import StoreConnection
from tests.simulation.stores import InMemory, InPostgres, Store
from tests.simulation.tables import SET_BY_HAND
from tests.simulation.virtual import Loop, at_once

Operation = Callable[[Any], Coroutine[Any, Any, object]]

_STEPS = 600
_NAMES = {"namespace": "jobs", "name": "hj"}


class _Operations:
    """Random calls of the store, with arguments that are sometimes right and sometimes late."""

    def __init__(self, random: Random, loop: Loop, store: Store) -> None:
        self._random = random
        self._loop = loop
        self._store = store
        self._jobs: list[UUID] = []

    def next(self) -> tuple[str, bool, Operation]:
        """Its name, whether it is a transaction, and what to do with a connection."""
        random, uid = self._random, f"uid-{self._random.randrange(3)}"
        if not self._jobs or random.randrange(12) == 0:
            return self._insert()
        job_id = random.choice(self._jobs[-6:])
        job = self._store.rows()[0].get(job_id)  # None: its key was another one's
        attempt = random.choice([1, 1, 2, 3, 4])
        if job is not None and random.randrange(3):
            attempt = job["attempt"]
        window = random.choice([1, 3, 100])
        choices: list[tuple[str, bool, Operation]] = [
            *[("claim", True, lambda c: claim(c, window=window))] * 4,
            ("read", False, lambda c: attempts.read_job(c, job_id)),
            (
                "bind HybridJob",
                False,
                lambda c: attempts.bind_hybridjob(c, job_id, attempt, **_NAMES, uid=uid),
            ),
            ("bind Job", False, lambda c: attempts.bind_kubernetes_job(c, job_id, attempt, uid)),
            (
                "report",
                False,
                lambda c: attempts.report_failure(
                    c, job_id, attempt, error="no", permanent=False, retry_after_seconds=3
                ),
            ),
            (
                "open",
                False,
                lambda c: attempts.open_dispatches(c, settled=timedelta(seconds=30)),
            ),
            (
                "ended",
                False,
                lambda c: attempts.have_ended(c, [(job_id, attempt), (job_id, 1)]),
            ),
            ("again", False, lambda c: resources.hand_out_again(c, job_id, attempt, uid)),
            ("statuses", False, lambda c: attempts.statuses(c, self._jobs)),
            ("cancel", False, lambda c: outcome.request_cancel(c, job_id)),
            ("forget", False, lambda c: resources.forget_uid(c, job_id, uid)),
            (
                "spent",
                False,
                lambda c: resources.forget_spent(c, [resources.Spent(uid, job_id, attempt)]),
            ),
            (
                "count up",
                True,
                lambda c: restored.count_up(c, job_id, attempt + 1, **_NAMES, uid=uid),
            ),
            ("retry", False, lambda c: c.execute(_RETRY, [job_id])),
            ("adopt", True, lambda c: self._adopt(c, job_id, uid)),
        ]
        choices.append(self._types())
        hand = {"id": job_id, "status": random.choice(["completed", "failed", "cancelled"])}
        choices.append(("by hand", False, lambda c: c.execute(SET_BY_HAND, hand)))
        choices += [self._requeue(job_id), *[self._evidence(job_id, attempt)] * 2]
        choices += [self._start(job_id, attempt, uid)] * 3
        choices += [self._end(job_id, attempt)] * 5
        choices += [self._dispatched(job_id, attempt, uid)] * 2
        return random.choice(choices)

    def _new(self, job_id: UUID, key: str | None) -> NewJob:
        spec = TYPES[self._random.randrange(len(TYPES))].spec
        return NewJob(
            id=job_id,
            type=spec.type,
            payload='{"a":  1}',
            source="api",
            key=key,
            priority=self._random.choice([0, 0, 2]),
            max_retries=spec.retry.limit,
            deadline_seconds=self._random.choice([60, 900]),
        )

    def _insert(self) -> tuple[str, bool, Operation]:
        job_id = derived_id(f"{len(self._jobs)}", self._loop.now())
        self._jobs.append(job_id)
        job = self._new(job_id, self._random.choice([None, None, "a"]))
        if self._random.randrange(4) == 0:
            job = job._replace(id=self._random.choice(self._jobs))
        return "insert", False, lambda c: insert_jobs(c, [job])

    def _types(self) -> tuple[str, bool, Operation]:
        random = self._random
        one = random.choice(TYPES)
        changed = replace(
            one, uid=random.choice([one.uid, "uid-2"]), generation=random.choice([1, 2])
        )
        kept = [each.spec.type for each in TYPES if each is not one]
        return random.choice(
            [
                ("type", False, lambda c: upsert_type(c, changed)),
                ("type", False, lambda c: upsert_type(c, changed)),
                ("no type", False, lambda c: delete_type(c, changed.uid)),
                ("no type", False, lambda c: delete_other_types(c, kept)),
            ]
        )

    async def _adopt(self, connection: Any, job_id: UUID, uid: str) -> None:
        job = NewJob(id=job_id, type="sim/plain", payload="{}", source="kubernetes", key=uid)
        await resources.adopt_job(connection, job, **_NAMES, uid=uid)

    def _requeue(self, job_id: UUID) -> tuple[str, bool, Operation]:
        async def requeue(connection: Any) -> None:
            state = await attempts.read_job(connection, job_id)
            if state is not None:
                await connection.execute(SET_BY_HAND, {"id": job_id, "status": "queued"})

        return "requeue", True, requeue

    def _start(self, job_id: UUID, attempt: int, uid: str) -> tuple[str, bool, Operation]:
        started_at = self._loop.now() - timedelta(seconds=self._random.choice([0, 3, -3]))
        pod = {"pod_name": self._random.choice(["pod", "pod-2"]), "pod_uid": uid}
        return (
            "start",
            False,
            lambda c: attempts.start(c, job_id, attempt, **pod, started_at=started_at),
        )

    def _evidence(self, job_id: UUID, attempt: int) -> tuple[str, bool, Operation]:
        log = self._random.choice([None, "late\0"])
        end = AttemptEnd(Outcome.FAILED, "Late", log_tail=log, exit_code=9, pod_name="late")
        return "evidence", False, lambda c: outcome.add_evidence(c, job_id, attempt, end)

    def _end(self, job_id: UUID, attempt: int) -> tuple[str, bool, Operation]:
        random, now = self._random, self._loop.now()
        ended_as = random.choice(list(Outcome))
        succeeded = ended_as is Outcome.SUCCEEDED
        end = AttemptEnd(
            ended_as,
            "Ended",
            message=random.choice([None, "because"]),
            result=random.choice(['{"b":  [1]}', '"\\u0000"', None]) if succeeded else None,
            retry_after_seconds=random.choice([None, 0.0, 90.0]),
            exit_code=random.choice([None, 1]),
            log_tail=random.choice([None, "log\0"]),
            started_at=random.choice([None, now - timedelta(seconds=2)]),
            ended_at=random.choice([None, now - timedelta(seconds=1), now - timedelta(hours=1)]),
            pod_name=random.choice([None, "pod"]),
        )
        return "end", True, lambda c: outcome.record_outcome(c, job_id, attempt, end)

    def _dispatched(self, job_id: UUID, attempt: int, uid: str) -> tuple[str, bool, Operation]:
        claimed = Claim(job_id, "sim/plain", attempt, 900, 0, "sha256:", None, None, None, None, 0)

        async def dispatched(connection: Any) -> object:
            await resources.mark_dispatched(connection, claimed, **_NAMES, uid=uid)
            return await resources.find_open(connection, claimed)

        return "dispatched", True, dispatched


def _did(store: Store, operation: Operation, *, transaction: bool, random: Random) -> object:
    """What it returned, or raised."""
    connection = StoreConnection(store, None)
    with patch.object(policy, "jitter", random.random):
        try:
            if transaction:
                with store.transaction():
                    return _result(operation(connection))
            return _result(operation(connection))
        except (AttemptClosed, psycopg.DataError) as error:
            return type(error)


def _result(work: Coroutine[Any, Any, object]) -> object:
    try:
        work.send(None)
    except StopIteration as returned:
        value: object = returned.value
        return None if hasattr(value, "fetchall") else value
    raise RuntimeError("nothing here waits")


@pytest.fixture
async def stores(database_urls: DatabaseUrls) -> Any:
    loop = Loop()
    options: Any = {"autocommit": True, "row_factory": dict_row}
    async with await psycopg.AsyncConnection.connect(database_urls.owner, **options) as owner:
        for each in TYPES:
            await upsert_type(owner, each)
    memory = InMemory(loop.now)
    for each in TYPES:
        at_once(upsert_type(StoreConnection(memory, None), each))  # type: ignore[arg-type]
    with closing(InPostgres(database_urls.owner, loop.now)) as postgres:
        yield loop, memory, postgres


@pytest.mark.parametrize("seed", range(3))
def test_the_tables_in_memory_do_what_postgres_does(stores: Any, seed: int) -> None:
    loop, memory, postgres = stores
    random = Random(seed)
    operations = _Operations(random, loop, memory)
    done = set()
    for step in range(_STEPS):
        loop.advance(loop.time() + random.choice([0.0, 0.5, 4.0, 40.0]))
        name, transaction, operation = operations.next()
        jitter = random.random()
        answers = [
            _did(store, operation, transaction=transaction, random=Random(jitter))
            for store in (memory, postgres)
        ]
        done.add(name)
        assert answers[0] == answers[1], f"step {step}: {name}"
        assert _differences(memory, postgres) == [], f"step {step}: {name}"
    assert len(done) >= 22


def _differences(memory: InMemory, postgres: InPostgres) -> list[tuple[object, ...]]:
    """What Postgres has otherwise: key, column, in memory, there."""
    found: list[tuple[object, ...]] = [("type", each) for each in memory.types() ^ postgres.types()]
    pairs: Any = zip(memory.rows(), postgres.rows(), strict=True)
    for ours, theirs in pairs:
        found += [("missing", key) for key in ours.keys() ^ theirs.keys()]
        found += [
            (key, column, ours[key][column], value)
            for key, row in theirs.items()
            for column, value in row.items()
            if key in ours and ours[key][column] != value
        ]
    return found
