"""The main process of a job's pod: brings the payload in, runs the handler, carries the end out.

The contract is that of docs/handlers.md. Whatever happens, the process ends, with a code that says
how: an outcome that the API has not taken goes into the termination message, and threads that a
handler leaves behind are not waited for.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread, Timer
from time import monotonic, sleep
from typing import NoReturn
from uuid import UUID, uuid4

from hybridjobs import codec
from hybridjobs.logs import configure_standard_logging
from hybridjobs.sdk.context import Context
from hybridjobs.sdk.errors import PermanentError
from hybridjobs.tracing import flush_traces
from hybridjobs.worker import registry
from hybridjobs.worker.api import ApiError, Fenced, Refused, Unreachable, WorkerApi
from hybridjobs.worker.assignment import Assignment, BadEnvironment
from hybridjobs.worker.exits import Exit
from hybridjobs.worker.reporter import Reporter
from hybridjobs.worker.runner import (
    CANCELLED,
    Completed,
    End,
    Failure,
    progress_document,
    run,
)
from hybridjobs.worker.traces import begin_tracing

TERMINATION_LOG = Path("/dev/termination-log")
TERMINATION_LOG_BYTES = 4096  # the kubelet cuts the rest off
PATIENCE_SECONDS = 60.0
FLUSH_SECONDS = 5.0
# A loop that does not turn within this is held by the handler.
BLOCKED_SECONDS = 5.0
# What a handler may still do after its attempt was closed; SIGTERM has the pod's grace period.
CLOSED_SECONDS = 30.0
LEAVE_SECONDS = 10.0

log = logging.getLogger(__name__)


async def main(
    environment: Mapping[str, str] = os.environ, termination_log: Path = TERMINATION_LOG
) -> int:
    """Run the job that the environment names and return the exit code.

    It is a process' last act: LEAVE_SECONDS after it returns the process ends by force.
    """
    try:
        assignment = Assignment.read(environment)
    except BadEnvironment as error:
        configure_standard_logging()
        log.error("%s", error)
        code: int = _leave(Failure(str(error), permanent=True), termination_log)
    else:
        configure_standard_logging(job_id=str(assignment.job_id), attempt=assignment.attempt)
        begin_tracing()
        with WorkerApi(assignment) as api:
            code = await _Pod(assignment, api, termination_log).run()
    _end_within(LEAVE_SECONDS, code)
    return code


class _Pod:
    """One attempt in this process."""

    def __init__(self, assignment: Assignment, api: WorkerApi, termination_log: Path) -> None:
        self._assignment = assignment
        self._api = api
        self._termination_log = termination_log
        self._deadline = monotonic() + assignment.deadline_seconds
        self._loop = asyncio.get_running_loop()
        self._work: asyncio.Task[End] | None = None
        self._stopped: str | None = None
        self._stop_asked = Event()
        self._turned = Event()
        self._reporter = Reporter(api, self._stop)

    async def run(self) -> int:
        self._work = asyncio.create_task(self._attempt(), name="handler")
        # Not by add_signal_handler alone, which waits for the loop: a handler may hold it. But it
        # wakes a loop that was just about to sleep, which a signal by itself does not.
        self._loop.add_signal_handler(signal.SIGTERM, lambda: None)
        signal.signal(signal.SIGTERM, lambda *_: self._stop("SIGTERM"))
        Thread(target=self._watch, name="hybridjobs-stop", daemon=True).start()
        self._reporter.start()
        try:
            await asyncio.wait([self._work])
            await asyncio.to_thread(self._reporter.finish, FLUSH_SECONDS)
            if self._work.cancelled() and self._stopped:
                return self._interrupted()
            end = CANCELLED if self._work.cancelled() else self._work.result()
            exit_ = await asyncio.to_thread(self._report, end)
            await asyncio.to_thread(flush_traces, FLUSH_SECONDS)
            return exit_
        finally:
            self._loop.remove_signal_handler(signal.SIGTERM)

    async def _attempt(self) -> End:
        try:
            handler = registry.load(self._assignment.handler)
            payload = await self._payload()
            checkpoint = await self._checkpoint()
        except registry.HandlerNotFound as error:
            log.exception("no handler")
            return Failure(str(error), permanent=True)
        except Fenced:
            self._stop("fenced")
            return await _forever()
        except (ApiError, ValueError) as error:
            log.error("cannot begin: %s", error)
            return Failure(f"cannot begin: {error}")
        context = Context(
            _ApiChannel(self._api, self._reporter, self._stop, self._deadline),
            job_id=self._assignment.job_id,
            type=self._assignment.type,
            attempt=self._assignment.attempt,
            deadline=datetime.now(UTC) + timedelta(seconds=self._deadline - monotonic()),
            checkpoint=checkpoint,
            traceparent=self._assignment.traceparent,
        )
        return await run(handler, payload, context)

    async def _payload(self) -> object:
        text = self._assignment.payload
        if text is None:
            url = self._assignment.payload_url or ""
            text = await asyncio.to_thread(self._api.payload, url, self._patience())
        return codec.loads(text)

    async def _checkpoint(self) -> object:
        if self._assignment.attempt == 1:
            return None  # nobody was here before
        text = await asyncio.to_thread(self._api.checkpoint, self._patience())
        return None if text is None else codec.loads(text)

    def _patience(self) -> float:
        return min(PATIENCE_SECONDS, self._deadline - monotonic())

    def _stop(self, reason: str) -> None:
        """End the attempt from outside: from any thread, and from a signal, at any time."""
        # No logging and no new thread here: a signal may have interrupted either.
        self._stopped = self._stopped or reason
        self._loop.call_soon_threadsafe(self._cancel)
        self._stop_asked.set()

    def _cancel(self) -> None:
        self._turned.set()
        if self._work is not None:
            self._work.cancel()
            if self._work.done():
                self._api.hurry()

    def _watch(self) -> None:
        """End the process by force if the handler does not let it end."""
        self._stop_asked.wait()
        log.warning("stopping: %s", self._stopped)
        if self._turned.wait(BLOCKED_SECONDS):
            if self._stopped == "SIGTERM":
                return  # the kubelet's grace period is the handler's
            sleep(CLOSED_SECONDS)
        log.error("the handler does not stop")
        self._reporter.finish(FLUSH_SECONDS)
        os._exit(self._interrupted())

    def _interrupted(self) -> Exit:
        _write(
            self._termination_log, codec.dumps(Failure(f"interrupted: {self._stopped}").document())
        )
        return Exit.INTERRUPTED

    def _report(self, end: End) -> Exit:
        """Carry the end out, and say by which code the process ends. Blocks."""
        patience = FLUSH_SECONDS if self._stopped or isinstance(end, Failure) else self._patience()
        try:
            self._api.outcome(_document(end), patience)
        except Fenced as fenced:
            if not fenced.in_doubt:
                self._stopped = "fenced"
                return self._interrupted()
        except Refused as error:
            if isinstance(end, Completed):
                return self._report(Failure(f"the result was refused: {error}", permanent=True))
            log.warning("the failure was refused: %s", error)
        except Unreachable as error:
            if isinstance(end, Completed):
                if len(end.result.encode()) > TERMINATION_LOG_BYTES:
                    # The API may be back for these few bytes.
                    return self._report(
                        Failure(f"the result does not fit the termination message, and {error}")
                    )
                _write(self._termination_log, end.result)
            log.warning("the outcome goes into the termination message: %s", error)
        return _leave(end, self._termination_log)


class _ApiChannel:
    """A context's way to the worker API."""

    def __init__(
        self, api: WorkerApi, reporter: Reporter, stop: Callable[[str], None], deadline: float
    ) -> None:
        self._api = api
        self._reporter = reporter
        self._stop = stop
        self._deadline = deadline

    async def progress(self, done: int, total: int | None, message: str | None) -> None:
        self._reporter.progress(progress_document(done, total, message))

    async def save_checkpoint(self, text: str) -> None:
        try:
            await asyncio.wrap_future(self._reporter.save_checkpoint(text))
        except Refused as error:
            raise PermanentError(f"the checkpoint was refused: {error}") from None

    async def submit(self, type_: str, payload: str, key: str | None, priority: int | None) -> UUID:
        # With a key of its own a request that is sent twice makes one job.
        head: dict[str, object] = {"type": type_, "key": key or str(uuid4())}
        if priority is not None:
            head["priority"] = priority
        document = f'{codec.dumps(head)[:-1]},"payload":{payload}}}'
        patience = min(PATIENCE_SECONDS, self._deadline - monotonic())
        try:
            return await asyncio.to_thread(self._api.submit, document, patience)
        except Refused as error:
            raise PermanentError(f"a job of type {type_} was refused: {error}") from None
        except Fenced:
            self._stop("fenced")
            return await _forever()


async def _forever() -> NoReturn:
    """Wait for the cancellation that was asked for."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody sets this future")


def _document(end: End) -> str:
    if isinstance(end, Completed):
        return f'{{"result":{end.result}}}'
    return codec.dumps(end.document())


def _leave(end: End, termination_log: Path) -> Exit:
    """The exit code for an end; a failure is told by the termination message too."""
    if isinstance(end, Completed):
        return Exit.SUCCESS
    text, room = codec.dumps(end.document()), len(end.error)
    while len(text.encode()) > TERMINATION_LOG_BYTES:
        room = room * 3 // 4
        text = codec.dumps(end.document(room))
    _write(termination_log, text)
    return Exit.PERMANENT if end.permanent else Exit.TRANSIENT


def _write(termination_log: Path, text: str) -> None:
    try:
        termination_log.write_text(text)
    except OSError as error:
        log.warning("no termination message: %s", error)


def _end_within(seconds: float, code: int) -> None:
    timer = Timer(seconds, os._exit, [code])
    timer.daemon = True
    timer.start()
