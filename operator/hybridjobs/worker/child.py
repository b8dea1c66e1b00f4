"""A warm child process of the ingress: runs quick handlers one after another, by frames.

`python -m hybridjobs.worker.child HANDLER…`. A frame is 4 bytes of length, big-endian, and that
much JSON. The protocol, from the parent's side:

    ← {"ready": true}                                      every handler named is imported
    → {"jobId", "type", "handler", "attempt", "deadlineSeconds", "payload", "checkpoint",
       "traceparent"}
    ← {"progress": {"done", "total", "message"}}           any number
    ← {"checkpoint": JSON}                                 any number
    ← {"submit": {"id", "type", "payload", "key", "priority"}}
    → {"submitted": {"id", "jobId"}} or {"submitted": {"id", "error"}}
    ← {"result": JSON, "log"} or {"error", "permanent", "retryAfter", "log"}; with "last": true
       where the handler has left behind what cannot be tidied up, and the process ends

One request at a time. The end of standard input ends the process at once, even in a handler: the
parent is gone. Frames go by copies of the descriptors, which a process that a handler forks does
not have; a handler's own output is its log.
"""

import asyncio
import contextlib
import importlib
import itertools
import logging
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any, BinaryIO, NoReturn
from uuid import UUID

from hybridjobs import codec
from hybridjobs.logs import about, configure_standard_logging
from hybridjobs.sdk.context import Context
from hybridjobs.sdk.errors import PermanentError
from hybridjobs.worker import registry
from hybridjobs.worker.capture import OutputCapture
from hybridjobs.worker.runner import (
    CANCELLED,
    Completed,
    End,
    Failure,
    progress_document,
    run,
)
from hybridjobs.worker.traces import begin_tracing

PROGRESS_SECONDS = 0.2
TIDY_SECONDS = 1.0


class Frames:
    """JSON texts over two descriptors."""

    def __init__(self, source: BinaryIO, target: BinaryIO) -> None:
        self._source = source
        self._target = target

    def read(self) -> Any:  # noqa: ANN401 - JSON is any
        """The next frame's value; EOFError at the end. Blocks."""
        size = int.from_bytes(self._exactly(4))
        return codec.loads(self._exactly(size))

    def write(self, text: str) -> None:
        """Send one frame."""
        content = text.encode("utf-8", "replace")
        self._target.write(len(content).to_bytes(4) + content)
        self._target.flush()

    def close_in_forks(self) -> None:
        """Have a forked process say and hear nothing: its words would be taken for ours."""

        def close() -> None:
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (self._source, self._target):
                os.dup2(nothing, stream.fileno())
            os.close(nothing)

        os.register_at_fork(after_in_child=close)

    def _exactly(self, size: int) -> bytes:
        content = self._source.read(size)
        if len(content) < size:
            raise EOFError
        return content


class Child:
    """Serves requests until the parent goes."""

    def __init__(self, frames: Frames, capture: OutputCapture) -> None:
        self._frames = frames
        self._capture = capture
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._current: _Run | None = None
        self._pid = os.getpid()
        self._processes: set[int] = set()

    async def serve(self, handlers: list[str]) -> NoReturn:
        """Warm up, then run what comes."""
        # What a context would import at its first use.
        importlib.import_module("httpx")
        importlib.import_module("hybridjobs.sdk.log")
        for name in handlers:
            try:
                registry.load(name).warm()
            except Exception:
                # Its requests are answered with the reason; the other handlers are served.
                logging.getLogger(__name__).exception("cannot warm up %s", name)
        self._processes = _child_processes()
        self._frames.write('{"ready":true}')
        Thread(target=self._listen, name="hybridjobs-parent", daemon=True).start()
        while True:
            request = await self._inbox.get()
            self._capture.begin()
            current = self._current = _Run(self._frames)
            end = await self._run(request, current)
            if os.getpid() != self._pid:
                os._exit(0)  # a fork of the handler's, which has returned from it like ourselves
            is_tidy = await self._tidy()
            current.close()
            log = codec.dumps(self._capture.end())
            last = "" if is_tidy else ',"last":true'
            self._frames.write(f'{_members(end)},"log":{log}{last}}}')
            if not is_tidy:
                os._exit(1)

    def _listen(self) -> None:
        try:
            while True:
                self._loop.call_soon_threadsafe(self._receive, self._frames.read())
        except (EOFError, OSError):
            os._exit(0)
        except ValueError:
            os._exit(1)  # no JSON: the parent speaks another protocol

    def _receive(self, frame: dict[str, Any]) -> None:
        answer = frame.get("submitted")
        if answer is None:
            self._inbox.put_nowait(frame)
        elif self._current is not None:
            self._current.answered(answer)

    async def _run(self, request: dict[str, Any], channel: "_Run") -> End:
        try:
            handler = registry.load(request["handler"])
        except registry.HandlerNotFound as error:
            return Failure(str(error), permanent=True)
        context = Context(
            channel,
            job_id=UUID(request["jobId"]),
            type=request["type"],
            attempt=request["attempt"],
            deadline=datetime.now(UTC) + timedelta(seconds=request["deadlineSeconds"]),
            checkpoint=request.get("checkpoint"),
            traceparent=request.get("traceparent"),
        )
        # A task of its own: what the handler does to its task ends with it.
        with about(context.job_id, context.attempt):
            task = asyncio.create_task(run(handler, request["payload"], context))
        await asyncio.wait([task])
        return CANCELLED if task.cancelled() else task.result()

    async def _tidy(self) -> bool:
        """End what a handler left; False when a task goes on, or there were processes."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        going_on = (await asyncio.wait(left, timeout=TIDY_SECONDS))[1] if left else set()
        return not going_on and not self._end_processes()

    def _end_processes(self) -> bool:
        """Kill those of this run, also where their session is another; whether there were any."""
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass  # one that has ended, for whose end the handler has not waited
        except ChildProcessError:
            return False
        left = _child_processes() - self._processes
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(left)


class _Run:
    """The way from one run's context to the parent; closed with it, whoever holds on to it."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._loop = asyncio.get_running_loop()
        self._submitted: dict[int, asyncio.Future[UUID]] = {}
        self._ids = itertools.count(1)
        self._progress: str | None = None
        self._progress_at = 0.0
        self._is_closed = False

    async def progress(self, done: int, total: int | None, message: str | None) -> None:
        """Tell the parent, at most every PROGRESS_SECONDS and at the end."""
        self._progress = f'{{"progress":{progress_document(done, total, message)}}}'
        if monotonic() >= self._progress_at:
            self._flush_progress()

    async def save_checkpoint(self, text: str) -> None:
        """Hand the checkpoint to the parent."""
        self._write(f'{{"checkpoint":{text}}}')

    async def submit(self, type_: str, payload: str, key: str | None, priority: int | None) -> UUID:
        """Ask the parent, and wait for its answer."""
        number = next(self._ids)
        head = codec.dumps({"id": number, "type": type_, "key": key, "priority": priority})
        self._write(f'{{"submit":{head[:-1]},"payload":{payload}}}}}')
        future: asyncio.Future[UUID] = self._loop.create_future()
        self._submitted[number] = future
        return await future

    def answered(self, answer: dict[str, Any]) -> None:
        """The parent's answer to a submission."""
        future = self._submitted.pop(answer["id"], None)
        if future is None or future.done():
            return
        if "error" in answer:
            future.set_exception(PermanentError(answer["error"]))
        else:
            future.set_result(UUID(answer["jobId"]))

    def close(self) -> None:
        """The run is over: what its handler left behind says nothing more of it, or of the next."""
        self._flush_progress()
        self._is_closed = True

    def _flush_progress(self) -> None:
        if self._progress is not None:
            self._write(self._progress)
            self._progress = None
            self._progress_at = monotonic() + PROGRESS_SECONDS

    def _write(self, text: str) -> None:
        if self._is_closed:
            raise RuntimeError("the handler has ended")
        self._frames.write(text)


def _members(end: End) -> str:
    """The final frame but for its log and its last brace."""
    if isinstance(end, Completed):
        return f'{{"result":{end.result}'
    return codec.dumps(end.document())[:-1]


def _frames() -> Frames:
    """Over copies of descriptors 0 and 1; what a handler reads there is nothing."""
    source, target = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    frames = Frames(source, target)
    frames.close_in_forks()
    return frames


def _child_processes() -> set[int]:
    """The ids of this process' own children, those that have ended and wait to be noticed too."""
    files = Path("/proc/self/task").glob("*/children")
    return {int(pid) for file in files for pid in _text(file).split()}


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""  # of a thread that has just ended


async def main(handlers: list[str]) -> NoReturn:
    """Be the child."""
    frames = _frames()
    capture = OutputCapture()
    configure_standard_logging()
    begin_tracing()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to take
    await Child(frames, capture).serve(handlers)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
