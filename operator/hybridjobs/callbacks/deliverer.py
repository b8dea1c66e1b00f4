"""The loop that sends what is due. It shares nothing with the jobs but the database's pool, of
which it holds a connection only to claim and to record: a receiver that hangs delays nobody else.

At least once: a process that is killed between a try and its record leaves a lease that runs out,
and the delivery goes again, by any replica, under the same webhook-id.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog
from structlog.contextvars import bind_contextvars

from hybridjobs.callbacks.retry import what_follows
from hybridjobs.callbacks.sender import Answer, Sender
from hybridjobs.errors import DatabaseUnavailable
from hybridjobs.store.callbacks import Due, Tried, claim_deliveries, record_try
from hybridjobs.store.database import Database
from hybridjobs.tracing import span
from hybridjobs.waits import set_within

log = structlog.get_logger(__name__)

MAX_SENDS = 32
MAX_SENDS_PER_HOST = 4

_POLL_SECONDS = 1.0
_LEASE = timedelta(seconds=60)  # a try takes 15 s at most, and its record some more
_END_SECONDS = 5.0


class Deliverer:
    """Delivers until cancelled. `tried` is told the result and the seconds of each try."""

    def __init__(
        self,
        database: Database,
        sender: Sender,
        *,
        tried: Callable[[str, float], None],
        lease: timedelta = _LEASE,
    ) -> None:
        self._database = database
        self._sender = sender
        self._tried = tried
        self._lease = lease
        self._sends: Counter[str] = Counter()  # under way, by host
        self._tasks: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Event()

    async def run(self) -> None:
        """Deliver until cancelled; then what is under way has some seconds to end."""
        try:
            while True:
                self._freed.clear()
                try:
                    await self._begin_due()
                except DatabaseUnavailable as error:
                    log.warning("callbacks wait", error=error.detail)
                await set_within(self._freed, _POLL_SECONDS)
        finally:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_END_SECONDS)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _begin_due(self) -> None:
        room = MAX_SENDS - len(self._tasks)
        if room <= 0:
            return
        async with self._database.connection() as connection:
            claimed = await claim_deliveries(
                connection,
                sends=self._sends,
                per_host=MAX_SENDS_PER_HOST,
                limit=room,
                lease=self._lease,
            )
        for due in claimed:
            self._sends[due.host] += 1
            task = asyncio.create_task(self._deliver(due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _deliver(self, due: Due) -> None:
        bind_contextvars(job_id=str(due.job_id), delivery=str(due.id))  # a task of its own
        try:
            tried = await self._try(due)
            async with self._database.connection() as connection:
                recorded = await record_try(connection, due, tried)
        except DatabaseUnavailable as error:
            # Sent or not: the lease runs out, and it goes once more.
            log.warning("callback not recorded", error=error.detail)
        else:
            self._say(due, tried, recorded)
        finally:
            self._sends[due.host] -= 1
            if not self._sends[due.host]:
                del self._sends[due.host]
            self._freed.set()

    async def _try(self, due: Due) -> Tried:
        try:
            with span("callback", due.traceparent, job_id=due.job_id, kind="client") as trace:
                answer = await self._sender.send(replace(due, traceparent=trace.traceparent))
                if answer.code is not None:
                    trace.tell("http.response.status_code", answer.code)
                if answer.error is not None:
                    trace.fail(answer.error)
        except Exception as error:
            # One delivery that nobody foresaw must not end the process, and then the next one.
            log.exception("callback broke")
            answer = Answer(datetime.now(UTC), 0, error=f"not sent: {type(error).__name__}")
        return what_follows(
            answer,
            failures=due.failures,
            give_up_at=due.give_up_at,
            now=datetime.now(UTC),
            jitter=random.random(),  # noqa: S311 - spreads load
        )

    def _say(self, due: Due, tried: Tried, recorded: bool) -> None:
        self._tried(tried.status.value, tried.duration_ms / 1000)
        # The URL stays out of the log: its path or query may be what protects it.
        facts = {
            "host": due.host,
            "tries": due.attempt,
            "status": tried.status.value,
            "code": tried.code,
        }
        if not recorded:
            log.warning("callback taken over by another replica", **facts)
        elif tried.error is not None:
            log.warning("callback not delivered", error=tried.error, **facts)
        else:
            log.debug("callback delivered", **facts)
