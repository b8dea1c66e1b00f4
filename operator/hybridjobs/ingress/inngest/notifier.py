"""Runs are told how their jobs ended, by events, from rows that are written with those ends."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, Protocol

import structlog
from structlog.contextvars import bind_contextvars

from hybridjobs import codec
from hybridjobs.errors import DatabaseUnavailable
from hybridjobs.ids import new_id
from hybridjobs.ingress.inngest.runs import FINISHED
from hybridjobs.store.database import Database
from hybridjobs.store.inngest import Ending, claim_endings, postpone, settle

log = structlog.get_logger(__name__)

MAX_SENDS = 60  # half a day, with the pauses between them
MAX_RESULT_BYTES = 128 * 1024  # of an event's 256 KiB, the least that Inngest may allow

_AT_ONCE = 32
_POLL_SECONDS = 0.25
_LEASE = timedelta(seconds=120)  # longer than all that the SDK tries for one event
_MAX_BACKOFF_SECONDS = 900.0


class Send(Protocol):
    """Sends one event; any exception: it may not have arrived."""

    def __call__(self, name: str, data: dict[str, Any], *, event_id: str) -> Awaitable[None]:
        """Send it."""


class Notifier:
    """Sends every end at least once. Ends that cannot be sent for half a day are given up."""

    def __init__(self, database: Database, send: Send) -> None:
        self._database = database
        self._send = send

    async def run(self) -> None:
        """Until cancelled; a database that is away is waited for."""
        while True:
            try:
                sent = await self.send_due()
            except DatabaseUnavailable as error:
                log.warning("Inngest is not told of ends", error=error.detail)
                sent = 0
            if sent < _AT_ONCE:
                await asyncio.sleep(_POLL_SECONDS)

    async def send_due(self) -> int:
        """Send what is due, some of it at once; how many ends that were."""
        async with self._database.connection() as connection:
            due = await claim_endings(
                connection, limit=_AT_ONCE, lease=_LEASE, max_result_bytes=MAX_RESULT_BYTES
            )
        if due:
            arrived = await asyncio.gather(*(self._sent(ending) for ending in due))
            settled = [each for each, done in zip(due, arrived, strict=True) if done]
            others = [each for each, done in zip(due, arrived, strict=True) if not done]
            async with self._database.connection() as connection:
                await settle(connection, settled)
                await postpone(connection, [(each, _backoff(each.sends)) for each in others])
        return len(due)

    async def _sent(self, ending: Ending) -> bool:
        """Whether the end needs no more sending."""
        bind_contextvars(job_id=str(ending.job_id))  # a task of its own
        if not ending.status.is_terminal:
            return True  # retried by hand in the meantime; its next end has a row of its own
        try:
            # Inngest drops an event whose id it has seen within a day, also when the first came
            # too early for the run: each sending is an event of its own.
            await self._send(FINISHED, event_data(ending), event_id=str(new_id()))
        except Exception as error:
            # Without its text, in which the event key may stand.
            log.warning(
                "Inngest was not told of an end",
                run_id=ending.run_id,
                sends=ending.sends,
                error=type(error).__name__,
            )
            if ending.sends >= MAX_SENDS:
                log.error("given up: Inngest will not hear of an end")
            return ending.sends >= MAX_SENDS
        return True


def event_data(ending: Ending) -> dict[str, Any]:
    """The data of the event hybridjobs/job.finished, as docs/inngest.md describes it."""
    data: dict[str, Any] = {
        "run_id": ending.run_id,
        "job_id": str(ending.job_id),
        "type": ending.type,
        "status": ending.status.value,
        "result": None if ending.result is None else codec.loads(ending.result),
        "error": ending.error,
        "reason": ending.reason,
        "attempts": ending.attempt,
        "duration_ms": ending.duration_ms,
    }
    if ending.result_omitted:
        data["result_omitted"] = True
    return data


def _backoff(sends: int) -> timedelta:
    return timedelta(seconds=min(_MAX_BACKOFF_SECONDS, 2.0 ** min(sends, 16)))
