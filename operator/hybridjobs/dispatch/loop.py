"""The loop that claims queued jobs and has each claim run somewhere."""

import asyncio
from collections.abc import Iterable
from typing import Protocol

import structlog

from hybridjobs.errors import ClusterUnavailable, DatabaseUnavailable, RowLocked
from hybridjobs.model import Claim
from hybridjobs.store.claim import claim
from hybridjobs.store.database import Database
from hybridjobs.waits import set_within

log = structlog.get_logger(__name__)

_POLL_SECONDS = 1.0
_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)


class Runtime(Protocol):
    """Where claimed attempts run. One that it does not confirm is handed out again."""

    async def dispatch(self, claimed: Claim) -> bool:
        """Have the attempt run, and confirm it by `mark_dispatched`; whether that was done."""


class Dispatcher:
    """Claims and dispatches until cancelled.

    `wake()` says that a job was enqueued here; rows from elsewhere (other replicas, SQL, backoffs
    that have passed) are found by polling every second.
    """

    def __init__(self, database: Database, runtime: Runtime, *, window: int) -> None:
        self._database = database
        self._runtime = runtime
        self._window = window
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look at the queue now rather than at the next poll."""
        self._wake.set()

    async def run(self) -> None:
        """Dispatch until cancelled. An API or database that is away is waited for."""
        failures = 0
        while True:
            self._wake.clear()
            try:
                if await self.dispatch_once():
                    self._wake.set()
                failures = 0
            except (ClusterUnavailable, DatabaseUnavailable) as error:
                wait = _BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)]
                failures += 1
                log.warning("dispatch waits", error=error.detail, seconds=wait)
                await asyncio.sleep(wait)
                continue
            await set_within(self._wake, _POLL_SECONDS)

    async def dispatch_once(self) -> int:
        """Claim what fits into the window and dispatch it; returns how many were dispatched."""
        async with self._database.transaction() as connection:
            claims = await claim(connection, window=self._window)
        results = await asyncio.gather(
            *(self._runtime.dispatch(claimed) for claimed in claims), return_exceptions=True
        )
        _raise_first(results)
        return sum(result is True for result in results)


def _raise_first(results: Iterable[object]) -> None:
    for result in results:
        if isinstance(result, RowLocked):
            # Not confirmed, so it is handed out again; the others need not wait for that.
            log.warning("claim not confirmed", error=result.detail)
        elif isinstance(result, BaseException):
            raise result
