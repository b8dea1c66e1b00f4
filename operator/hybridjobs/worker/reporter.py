"""What a pod says while its handler works: heartbeats, progress, checkpoints.

A thread of its own, so that a handler which never gives the event loop back still lives in the
eyes of the service. It alone writes progress and checkpoints, so a late try can never overwrite a
newer one.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from time import monotonic

from hybridjobs.worker.api import Fenced, Refused, Unreachable, WorkerApi

HEARTBEAT_SECONDS = 15.0
PROGRESS_SECONDS = 1.0
RETRY_SECONDS = 2.0
REQUEST_SECONDS = 10.0

log = logging.getLogger(__name__)


@dataclass
class _Checkpoint:
    """One to be saved; `tried` is done after the first try, failed where it was refused."""

    text: str
    tried: "Future[None]" = field(default_factory=Future)

    def __post_init__(self) -> None:
        # From now on a handler that is cancelled while it waits cannot settle it.
        self.tried.set_running_or_notify_cancel()


class Reporter(Thread):
    """Reports for one attempt until `finish`.

    `stop` is called, from this thread, with the reason for which the attempt should end: "fenced"
    or "cancelled".
    """

    def __init__(self, api: WorkerApi, stop: Callable[[str], None]) -> None:
        super().__init__(name="hybridjobs-reporter", daemon=True)
        self._api = api
        self._stop_attempt = stop
        self._changed = Condition()
        self._progress: str | None = None
        self._checkpoint: _Checkpoint | None = None
        self._finish_by: float | None = None
        now = monotonic()
        self._heartbeat_at = now
        self._progress_at = now
        self._checkpoint_at = now

    def progress(self, document: str) -> None:
        """Have this JSON text sent; of several within PROGRESS_SECONDS the last one is."""
        with self._changed:
            self._progress = document
            self._changed.notify()

    def save_checkpoint(self, text: str) -> "Future[None]":
        """Have this saved, however often it takes to be tried; the future ends after the first."""
        checkpoint = _Checkpoint(text)
        with self._changed:
            self._settle(self._checkpoint)
            self._checkpoint = checkpoint
            self._checkpoint_at = monotonic()
            self._changed.notify()
        return checkpoint.tried

    def finish(self, patience_seconds: float) -> None:
        """Send what is not sent yet, for as long as that, then end. Blocks."""
        with self._changed:
            self._finish_by = monotonic() + patience_seconds
            self._changed.notify()
        self.join(patience_seconds + REQUEST_SECONDS)

    def run(self) -> None:
        """Send what is due, until finished or fenced."""
        try:
            while self._wait():
                self._send()
        except Fenced:
            self._stop_attempt("fenced")
        finally:
            with self._changed:
                self._settle(self._checkpoint)

    def _wait(self) -> bool:
        """Sleep until something is due; False when there is nothing left to do."""
        with self._changed:
            while True:
                now = monotonic()
                if self._finish_by is not None:
                    pending = self._progress is not None or self._checkpoint is not None
                    if not pending or now >= self._finish_by:
                        return False
                due = self._due()
                if due <= now:
                    return True
                self._changed.wait(due - now)

    def _due(self) -> float:
        due = self._heartbeat_at if self._finish_by is None else float("inf")
        if self._progress is not None:
            due = min(due, self._progress_at if self._finish_by is None else 0)
        if self._checkpoint is not None:
            due = min(due, self._checkpoint_at)
        return due

    def _send(self) -> None:
        with self._changed:
            now = monotonic()
            finishing = self._finish_by is not None
            progress = self._progress if finishing or self._progress_at <= now else None
            if progress is not None:
                self._progress = None
                self._progress_at = now + PROGRESS_SECONDS
            checkpoint = self._checkpoint if self._checkpoint_at <= now else None
            beat = not finishing and self._heartbeat_at <= now
        if checkpoint is not None:
            self._save(checkpoint)
        if progress is not None:
            self._try(lambda: self._api.progress(progress))
        if beat:
            self._heartbeat_at = monotonic() + HEARTBEAT_SECONDS
            self._try(self._beat)

    def _beat(self) -> None:
        if self._api.heartbeat():
            self._stop_attempt("cancelled")

    def _save(self, checkpoint: _Checkpoint) -> None:
        refused: Refused | None = None
        saved = True
        try:
            self._api.save_checkpoint(checkpoint.text)
        except Unreachable as away:
            log.warning("checkpoint not saved yet: %s", away)
            saved = False
        except Refused as error:
            refused = error
        with self._changed:
            if self._checkpoint is checkpoint:
                if saved:
                    self._checkpoint = None
                else:
                    self._checkpoint_at = monotonic() + RETRY_SECONDS
            self._settle(checkpoint, refused)

    def _settle(self, checkpoint: _Checkpoint | None, refused: Refused | None = None) -> None:
        """Let whoever waits for the first try go on; the lock is held."""
        if checkpoint is None or checkpoint.tried.done():
            return
        if refused is None:
            checkpoint.tried.set_result(None)
        else:
            checkpoint.tried.set_exception(refused)

    def _try(self, request: Callable[[], None]) -> None:
        """Progress and heartbeats are worth one try: the next one says more."""
        try:
            request()
        except (Unreachable, Refused) as error:
            log.warning("%s", error)
