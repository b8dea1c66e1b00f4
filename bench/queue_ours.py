"""Our queue under the load of `make bench-queue`, and the plain loop it is measured against.

Only what the product itself runs: the ingress's Enqueuer, the dispatcher's claim, the Outcomes.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from bench.queue_load import PAYLOAD_SQL, Measured, RoundTrip, enqueue_for, payload
from hybridjobs import codec
from hybridjobs.ids import new_id
from hybridjobs.model import AttemptEnd, Claim, NewJob, Outcome
from hybridjobs.store.claim import claim
from hybridjobs.store.enqueue import Enqueuer
from hybridjobs.store.migrate import migrate
from hybridjobs.store.outcome import Outcomes
from tests.builders import job_type, register

# Two, since one type gets half the window at most.
TYPES = ("bench/a", "bench/b")
CALLERS = 256
DONE = AttemptEnd(Outcome.SUCCEEDED, "Completed", result='{"pages": 3}', exit_code=0)

# As the Enqueuer would have written them over the last hours, the oldest first.
_ROWS = f"""
INSERT INTO hybridjobs.background_jobs
    (id, type, payload, source, key, order_key, run_at, created_at, submitted_by, stage,
     concurrency_key)
SELECT hybridjobs.uuidv7_at(due), (%(types)b::text[])[1 + abs(mod(number, %(of)b::int))],
       {PAYLOAD_SQL}, 'github', 'delivery-' || number, due, due, due, 'bench',
       %(stage)b, %(key)b::text
FROM (SELECT -number AS number, now() - make_interval(secs => number * 0.01) AS due
      FROM generate_series(%(rows)b::int, 1, -1) AS number) AS made
"""

# Jobs that are over, as on every server that has been up for a while.
HISTORY = 20_000
_HISTORY = f"""
WITH job AS (
    INSERT INTO hybridjobs.background_jobs
        (id, type, payload, source, key, status, stage, attempt, created_at, started_at,
         completed_at, result, outcome_reason)
    SELECT hybridjobs.uuidv7_at(began), %b, {PAYLOAD_SQL}, 'github', 'past-' || number, 'completed',
           NULL, 1, began, began, began + interval '1 second', '{{"pages": 3}}', 'Completed'
    FROM (SELECT number, now() - make_interval(days => 1, secs => number) AS began
          FROM generate_series(1, %b::int) AS number) AS made
    RETURNING id, started_at, completed_at
)
INSERT INTO hybridjobs.job_attempts
    (job_id, attempt, runner, type_generation, deadline_seconds, claimed_at, started_at, ended_at,
     outcome, reason, spent_retry)
SELECT id, 1, 'pod', 1, 900, started_at, started_at, completed_at, 'succeeded', 'Completed', false
FROM job
"""


class HybridJobs:
    """One process: callers, the claim loop, and the outcomes, over five connections."""

    def __init__(self, url: str, types: tuple[str, ...] = TYPES, **spec: Any) -> None:  # noqa: ANN401 - as in a manifest
        self.url = url
        self._types = types
        self._spec = spec

    async def prepare(self, rows: int) -> None:
        await migrate(self.url, logins={})
        async with connected(self.url) as connection:
            await register(connection, *(job_type(each, **self._spec) for each in self._types))
            await connection.execute("TRUNCATE hybridjobs.background_jobs CASCADE")
            await connection.execute(_HISTORY.encode(), [self._types[0], HISTORY])
            await fill(connection, rows, types=self._types)

    async def enqueue(self, seconds: float) -> Measured:
        enqueuer = Enqueuer(self.url)
        async with running(enqueuer.run()):
            return await enqueue_for(
                seconds,
                lambda numbers: enqueuer.enqueue(jobs_of(numbers)),
                callers=CALLERS,
                batch=1,
            )

    async def roundtrip(self, seconds: float) -> Measured:
        trip = RoundTrip()
        enqueuer = Enqueuer(self.url)
        consumer = Consumer(self.url, trip)

        async def enqueue(numbers: list[int]) -> None:
            jobs = jobs_of(numbers)
            consumer.numbers.update(zip((job.id for job in jobs), numbers, strict=True))
            await enqueuer.enqueue(jobs)

        async with running(enqueuer.run()), running(consumer.run()):
            measured = await trip.run(seconds, enqueue, callers=CALLERS, batch=1)
        return measured | {"claims": consumer.claims}


class InHundreds(HybridJobs):
    """The same queue, after what single jobs did to it: as many jobs a call as the peers get."""

    async def prepare(self, rows: int) -> None:
        """It is prepared."""

    async def enqueue(self, seconds: float) -> Measured:
        enqueuer = Enqueuer(self.url)
        async with running(enqueuer.run()):
            return await enqueue_for(
                seconds, lambda numbers: enqueuer.enqueue(jobs_of(numbers)), callers=4, batch=100
            )


class Consumer:
    """Claims as a dispatcher does and completes at once what it gets; `run()` must be running."""

    def __init__(self, url: str, trip: RoundTrip | None = None, *, window: int = 1000) -> None:
        self._url = url
        self._trip = trip
        self._window = window
        self._open: set[UUID] = set()
        self._less = asyncio.Event()
        self.numbers: dict[UUID, int] = {}
        self.claims = 0
        self.ended = 0

    async def run(self) -> None:
        outcomes = Outcomes(self._url)
        async with connected(self._url) as connection, asyncio.TaskGroup() as tasks:
            tasks.create_task(outcomes.run())
            while True:
                async with connection.transaction():
                    claims = await claim(connection, window=self._window)
                self.claims += 1
                # A claim that nobody has confirmed for some seconds comes again.
                claims = [each for each in claims if each.job_id not in self._open]
                self._open.update(each.job_id for each in claims)
                for each in claims:
                    if self._trip is not None:
                        self._trip.picked_up(self.numbers.pop(each.job_id, None))
                    tasks.create_task(self._complete(outcomes, each))
                # The next claim takes half a window: many rows for one look at the queue.
                while len(self._open) > self._window // 2:
                    self._less.clear()
                    await self._less.wait()
                if not claims:
                    await asyncio.sleep(0.002)

    async def until(self, ended: int) -> None:
        """Returns when so many have been completed."""
        while self.ended < ended:
            self._less.clear()
            await self._less.wait()

    async def _complete(self, outcomes: Outcomes, claimed: Claim) -> None:
        recorded = await outcomes.record(claimed.job_id, claimed.attempt, DONE)
        assert recorded is not None
        assert recorded.changed
        self.ended += 1
        self._open.discard(claimed.job_id)
        self._less.set()
        if self._trip is not None:
            self._trip.ended()


class SingleCommits:
    """One INSERT, one commit: as many callers, a pool of connections, a job each."""

    def __init__(self, url: str, *, connections: int = 16) -> None:
        self._ours = HybridJobs(url)
        self._connections = connections

    async def prepare(self, rows: int) -> None:
        await self._ours.prepare(rows)

    async def enqueue(self, seconds: float) -> Measured:
        callers = CALLERS if self._connections > 1 else 1
        async with AsyncConnectionPool(
            self._ours.url,
            min_size=self._connections,
            max_size=self._connections,
            kwargs={"autocommit": True},
            timeout=60,
        ) as pool:

            async def insert(numbers: list[int]) -> None:
                [job] = jobs_of(numbers)
                async with pool.connection() as connection:
                    await connection.execute(
                        "INSERT INTO hybridjobs.background_jobs"
                        " (id, type, payload, source, key, submitted_by)"
                        " VALUES (%b, %b, %b::json, %b, %b, %b)",
                        [job.id, job.type, job.payload, job.source, job.key, job.submitted_by],
                    )

            return await enqueue_for(seconds, insert, callers=callers, batch=1)

    async def roundtrip(self, seconds: float) -> Measured:
        raise NotImplementedError


async def fill(
    connection: AsyncConnection[DictRow],
    rows: int,
    *,
    types: tuple[str, ...] = TYPES,
    key: str | None = None,
) -> None:
    """That many more waiting jobs; with `key`, all of that concurrency key."""
    await connection.execute(
        _ROWS.encode(),
        {"types": list(types), "of": len(types), "rows": rows, "stage": "ready", "key": key},
    )
    await connection.execute("VACUUM (ANALYZE) hybridjobs.background_jobs")
    await connection.execute("VACUUM (ANALYZE) hybridjobs.job_attempts")
    await connection.execute("CHECKPOINT")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[AsyncConnection[DictRow]]:
    """A connection as the store makes them."""
    async with await psycopg.AsyncConnection.connect(
        url, autocommit=True, row_factory=dict_row
    ) as connection:
        yield connection


@asynccontextmanager
async def running(run: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Its failure is the block's."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(run)
        yield
        task.cancel()


def jobs_of(numbers: list[int]) -> list[NewJob]:
    return [
        NewJob(
            id=new_id(),
            type=TYPES[number % len(TYPES)],
            payload=codec.dumps(payload(number)),
            source="github",
            key=str(new_id()),
            submitted_by="bench",
        )
        for number in numbers
    ]
