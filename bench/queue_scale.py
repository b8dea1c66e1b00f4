"""What a claim costs with a million rows waiting, and what a million passed jobs leave behind."""

import asyncio
import time
from datetime import timedelta
from statistics import median
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from bench.queue_load import OUTSTANDING, percentiles
from bench.queue_ours import (
    CALLERS,
    DONE,
    TYPES,
    Consumer,
    HybridJobs,
    connected,
    fill,
    jobs_of,
    running,
)
from hybridjobs.model import Claim
from hybridjobs.store.claim import claim
from hybridjobs.store.database import Database
from hybridjobs.store.enqueue import Enqueuer, insert_jobs
from hybridjobs.store.outcome import Report, record_outcomes
from hybridjobs.store.retention import Keep, delete_old_rows

CLAIMED = 100  # rows a measured claim gets
_KEYED = {"concurrency": {"limit": 1, "key": "repository.full_name"}}
_BUSY = "bench/busy"


class Lines:
    """A database with `rows` waiting, of which each measured claim finds CLAIMED to take."""

    def __init__(self, url: str, rows: int, *, blocked: bool | None) -> None:
        """`blocked`: the rows have one key, which is full; None: there are no keys."""
        self._queue = HybridJobs(url, (TYPES[0],), **({} if blocked is None else _KEYED))
        self._rows = rows
        self._key = _BUSY if blocked else None
        self._by_key = blocked is not None
        self.seconds: list[float] = []
        self.until_parked: dict[str, float] = {}

    async def prepare(self) -> None:
        await self._queue.prepare(0)
        async with connected(self._queue.url) as connection:
            if self._by_key:
                # The busy key's one place is taken for as long as this takes.
                await self._enqueue(connection, [_BUSY])
                assert len(await _claim(connection)) == 1
                await connection.execute("UPDATE hybridjobs.job_attempts SET dispatched_at = now()")
            await fill(connection, self._rows, types=(TYPES[0],), key=self._key)
            if self._key is not None and self._rows:
                await self._park(connection)
            # As a server has it that has been up for a while, whatever was inserted at once.
            await connection.execute("VACUUM (ANALYZE)")
            await connection.execute("CHECKPOINT")

    async def _park(self, connection: AsyncConnection[DictRow]) -> None:
        """How long others wait behind a million rows of a full key that came all at once."""
        await self._enqueue(connection, ["bench/other"])
        seconds: list[float] = []
        while not (claims := await _claim(connection, seconds)):
            pass
        await _complete(connection, [(each.job_id, each.attempt) for each in claims])
        self.until_parked = {
            "claims": len(seconds),
            "seconds": round(sum(seconds), 2),
            **percentiles(seconds),
        }

    async def measure(self) -> None:
        """One claim, on the clock; what it needs and leaves is made and cleared off it."""
        async with connected(self._queue.url) as connection:
            if self._by_key or not self._rows:
                await self._enqueue(connection, [f"bench/{n}" for n in range(CLAIMED)])
            for again in range(3):
                # The first two make this connection's plans and warm its caches.
                claims = await _claim(connection, self.seconds if again == 2 else [])
                assert CLAIMED <= len(claims) <= CLAIMED + 1, len(claims)
                await _complete(connection, [(each.job_id, each.attempt) for each in claims])
                if again < 2 or (self._rows and not self._by_key):
                    await self._enqueue(connection, [f"bench/{n}" for n in range(CLAIMED)])

    async def _enqueue(self, connection: AsyncConnection[DictRow], keys: list[str]) -> None:
        jobs = []
        for number, key in enumerate(keys):
            [job] = jobs_of([number * len(TYPES)])
            if self._by_key:
                payload = f'{{"repository":{{"full_name":"{key}"}}}}'
                job = job._replace(payload=payload, key_path="repository.full_name")
            jobs.append(job)
        await insert_jobs(connection, jobs)


async def _claim(
    connection: AsyncConnection[DictRow], seconds: list[float] | None = None
) -> list[Claim]:
    started = time.perf_counter()
    async with connection.transaction():
        # One type gets half the window, where the busy key's attempt has a place too.
        claims = await claim(connection, window=2 * CLAIMED + 2)
    if seconds is not None:
        seconds.append(time.perf_counter() - started)
    return claims


async def _complete(connection: AsyncConnection[DictRow], attempts: list[tuple[UUID, int]]) -> None:
    async with connection.transaction():
        await record_outcomes(connection, [Report(job, number, DONE) for job, number in attempts])


async def claims_compared(lines: dict[str, Lines], rounds: int) -> dict[str, float]:
    """The median milliseconds of a claim on each, in alternating rounds."""
    for each in lines.values():
        await each.prepare()
    for _ in range(rounds):
        for each in lines.values():
            await each.measure()
    return {name: median(each.seconds) * 1000 for name, each in lines.items()}


async def passed(url: str, jobs: int) -> dict[str, Any]:
    """So many jobs enqueued, claimed and completed; the time it took, and the bytes after it."""
    consumer = Consumer(url)
    enqueuer = Enqueuer(url)
    started = time.perf_counter()
    async with running(enqueuer.run()), running(consumer.run()):
        numbers = iter(range(jobs))

        async def caller() -> None:
            for number in numbers:
                await enqueuer.enqueue(jobs_of([number]))
                await consumer.until(number - OUTSTANDING)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        await consumer.until(jobs)
    seconds = time.perf_counter() - started
    async with connected(url) as connection:
        cursor = await connection.execute(
            """
            SELECT relname, pg_total_relation_size(oid) AS bytes FROM pg_class
            WHERE relnamespace = 'hybridjobs'::regnamespace AND relkind = 'r'
            UNION ALL
            SELECT relname, pg_relation_size(oid) FROM pg_class
            WHERE relnamespace = 'hybridjobs'::regnamespace AND relkind = 'i'
              AND pg_relation_size(oid) > 1000000
            ORDER BY bytes DESC
            """
        )
        sizes = {row["relname"]: row["bytes"] for row in await cursor.fetchall()}
        cursor = await connection.execute(
            """
            SELECT sum(pg_total_relation_size(oid))::bigint AS bytes FROM pg_class
            WHERE relnamespace = 'hybridjobs'::regnamespace AND relkind = 'r'
            """
        )
        [total] = await cursor.fetchall()
    return {
        "per_second": round(jobs / seconds, 1),
        "bytes": total["bytes"],
        "sizes": {name: size for name, size in sizes.items() if size > 1_000_000},
    }


async def bloat(url: str, jobs: int, rounds: int) -> list[dict[str, Any]]:
    """Rounds of passed jobs; between them the retention deletes every one, and vacuum runs."""
    await HybridJobs(url).prepare(0)
    measured = []
    for number in range(rounds):
        if number:
            async with Database(url, size=2) as database:
                keep = Keep(completed=timedelta(0), failed=timedelta(0))
                await delete_old_rows(database, keep, batch_rows=5000, pause_seconds=0)
            # What autovacuum does within its next minute.
            async with connected(url) as connection:
                await connection.execute("VACUUM (ANALYZE, TRUNCATE false)")
        measured.append(await passed(url, jobs))
    return measured
