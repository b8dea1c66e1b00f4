"""The two other queues of `make bench-queue`, by their documented best settings.

    python -m bench.queue_peers procrastinate|pgqueuer URL

Runs in an environment of its own (requirements-peers.txt). Commands come as lines of JSON, such as
{"enqueue": 3}, and are answered by a line each. What they may use is what their documentation says
is fastest: procrastinate's batch_defer_async and one worker with concurrency; pgqueuer's asyncpg
driver, lists of jobs to enqueue, and five consumers in one uvloop, as in its own benchmark. Their
batches are larger than in that benchmark, which only helps them.
"""

import asyncio
import contextlib
import importlib
import json
import logging
import sys
from typing import Any

from bench.queue_load import (
    PAYLOAD_SQL,
    Measured,
    Queue,
    RoundTrip,
    answer,
    enqueue_for,
    payload,
)

_PRODUCERS = 4
_BATCH = 100


class Procrastinate:
    """One process, one worker."""

    concurrency = 20

    def __init__(self, url: str) -> None:
        self._url = url
        self._trip: RoundTrip | None = None
        self._procrastinate: Any = importlib.import_module("procrastinate")
        self._psycopg: Any = importlib.import_module("psycopg")

    async def prepare(self, rows: int) -> None:
        async with await self._psycopg.AsyncConnection.connect(
            self._url, autocommit=True
        ) as connection:
            found = await connection.execute("SELECT to_regclass('procrastinate_jobs')")
            if (await found.fetchone())[0] is None:
                async with self._app()[0].open_async() as app:
                    await app.schema_manager.apply_schema_async()
            await connection.execute("TRUNCATE procrastinate_jobs, procrastinate_events CASCADE")
            # The events that its triggers would write, at a fraction of the time.
            await connection.execute("SET session_replication_role = replica")
            await connection.execute(
                f"""
                INSERT INTO procrastinate_jobs (queue_name, task_name, args)
                SELECT 'default', 'bench_job', {PAYLOAD_SQL}
                FROM generate_series(-%s, -1) AS number
                """,
                [rows],
            )
            await connection.execute(
                "INSERT INTO procrastinate_events (job_id, type)"
                " SELECT id, 'deferred' FROM procrastinate_jobs"
            )
            await connection.execute("VACUUM (ANALYZE) procrastinate_jobs, procrastinate_events")
            await connection.execute("CHECKPOINT")

    async def enqueue(self, seconds: float) -> Measured:
        app, job = self._app()
        async with app.open_async():
            return await enqueue_for(
                seconds,
                lambda numbers: job.batch_defer_async(*map(payload, numbers)),
                callers=_PRODUCERS,
                batch=_BATCH,
            )

    async def roundtrip(self, seconds: float) -> Measured:
        self._trip = RoundTrip()
        app, job = self._app()
        async with app.open_async():
            worker = asyncio.create_task(
                app.run_worker_async(
                    concurrency=self.concurrency,
                    install_signal_handlers=False,
                    fetch_job_polling_interval=0.5,
                )
            )
            try:
                return await self._trip.run(
                    seconds,
                    lambda numbers: job.batch_defer_async(*map(payload, numbers)),
                    callers=1,
                    batch=_BATCH,
                )
            finally:
                worker.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await worker

    def _app(self) -> tuple[Any, Any]:
        app = self._procrastinate.App(
            connector=self._procrastinate.PsycopgConnector(
                conninfo=self._url, min_size=4, max_size=self.concurrency + 8
            )
        )

        # Counted where its work would end, a moment before that is durable.
        async def job(number: int, **_: object) -> None:
            if self._trip is not None:
                self._trip.picked_up(number)
                self._trip.ended()

        return app, app.task(name="bench_job")(job)


class PgQueuer:
    """One process, five consumers of a connection each, and a pool to enqueue by."""

    consumers = 5
    claim_batch = 100

    def __init__(self, url: str) -> None:
        self._url = url
        self._asyncpg: Any = importlib.import_module("asyncpg")
        self._pgqueuer: Any = importlib.import_module("pgqueuer")
        self._db: Any = importlib.import_module("pgqueuer.db")
        self._queries: Any = importlib.import_module("pgqueuer.queries")

    async def prepare(self, rows: int) -> None:
        connection = await self._asyncpg.connect(self._url)
        try:
            if await connection.fetchval("SELECT to_regclass('pgqueuer')") is None:
                queries = self._queries.Queries(self._db.AsyncpgDriver(connection))
                await queries.install()
                await queries.optimize_autovacuum()
            await connection.execute("TRUNCATE pgqueuer, pgqueuer_log, pgqueuer_statistics")
            await connection.execute(
                f"""
                INSERT INTO pgqueuer (priority, entrypoint, payload, status)
                SELECT 0, 'job', convert_to({PAYLOAD_SQL}::text, 'UTF8'), 'queued'
                FROM generate_series(-{rows}, -1) AS number
                """
            )
            await connection.execute(
                "INSERT INTO pgqueuer_log (job_id, status, entrypoint, priority)"
                " SELECT id, 'queued', entrypoint, priority FROM pgqueuer"
            )
            await connection.execute("VACUUM (ANALYZE) pgqueuer, pgqueuer_log")
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()

    async def enqueue(self, seconds: float) -> Measured:
        async with self._asyncpg.create_pool(self._url, min_size=_PRODUCERS) as pool:
            queries = self._queries.Queries(self._db.AsyncpgPoolDriver(pool))
            return await enqueue_for(
                seconds,
                lambda numbers: _enqueue(queries, numbers),
                callers=_PRODUCERS,
                batch=_BATCH,
            )

    async def roundtrip(self, seconds: float) -> Measured:
        trip = RoundTrip()
        connections = [await self._asyncpg.connect(self._url) for _ in range(self.consumers)]
        workers = [self._worker(connection, trip) for connection in connections]
        async with self._asyncpg.create_pool(self._url, min_size=_PRODUCERS) as pool:
            queries = self._queries.Queries(self._db.AsyncpgPoolDriver(pool))
            tasks = [
                asyncio.create_task(worker.run(batch_size=self.claim_batch)) for worker in workers
            ]
            try:
                return await trip.run(
                    seconds, lambda numbers: _enqueue(queries, numbers), callers=2, batch=_BATCH
                )
            finally:
                for worker in workers:
                    worker.shutdown.set()
                await asyncio.gather(*tasks)
                for connection in connections:
                    await connection.close()

    def _worker(self, connection: object, trip: RoundTrip) -> Any:  # noqa: ANN401 - a peer's
        worker = self._pgqueuer.PgQueuer(self._db.AsyncpgDriver(connection))

        async def run(job: Any) -> None:  # noqa: ANN401 - a peer's
            trip.picked_up(json.loads(job.payload)["number"])
            trip.ended()

        worker.entrypoint("job")(run)
        return worker


async def _enqueue(queries: Any, numbers: list[int]) -> None:  # noqa: ANN401 - a peer's
    payloads = [json.dumps(payload(number)).encode() for number in numbers]
    await queries.enqueue(["job"] * len(numbers), payloads, [0] * len(numbers))


def main(name: str, url: str) -> None:
    logging.disable(logging.WARNING)
    asyncio.set_event_loop_policy(importlib.import_module("uvloop").EventLoopPolicy())
    queue: Queue = Procrastinate(url) if name == "procrastinate" else PgQueuer(url)
    for line in sys.stdin:
        print(answer(queue, line), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
