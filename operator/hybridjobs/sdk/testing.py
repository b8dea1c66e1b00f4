"""Running a handler in a test: no queue, no cluster, no process."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from hybridjobs import codec
from hybridjobs.ids import new_id
from hybridjobs.sdk.context import Context
from hybridjobs.sdk.handler import Handler
from hybridjobs.sdk.values import to_json

if TYPE_CHECKING:
    import httpx

__all__ = ["HandlerRun", "Progress", "SubmittedJob", "run_handler"]


@dataclass(frozen=True)
class Progress:
    """One call of `context.progress`."""

    done: int
    total: int | None
    message: str | None


@dataclass(frozen=True)
class SubmittedJob:
    """One call of `context.submit`; `payload` as JSON value."""

    id: UUID
    type: str
    payload: Any
    key: str | None
    priority: int | None


@dataclass
class HandlerRun:
    """All that the handler did; `result` and `checkpoints` as JSON values."""

    result: Any = None
    progress: list[Progress] = field(default_factory=list)
    checkpoints: list[Any] = field(default_factory=list)
    submitted: list[SubmittedJob] = field(default_factory=list)


class _Recorder:
    def __init__(self, run: HandlerRun) -> None:
        self._run = run

    async def progress(self, done: int, total: int | None, message: str | None) -> None:
        self._run.progress.append(Progress(done, total, message))

    async def save_checkpoint(self, text: str) -> None:
        self._run.checkpoints.append(codec.loads(text))

    async def submit(self, type_: str, payload: str, key: str | None, priority: int | None) -> UUID:
        for earlier in self._run.submitted:
            if key is not None and (earlier.type, earlier.key) == (type_, key):
                return earlier.id
        job = SubmittedJob(new_id(), type_, codec.loads(payload), key, priority)
        self._run.submitted.append(job)
        return job.id


async def run_handler(
    handler: Handler[Any, Any],
    payload: object,
    *,
    run: HandlerRun | None = None,
    checkpoint: object = None,
    attempt: int = 1,
    deadline_seconds: float = 900,
    job_id: UUID | None = None,
    http: "httpx.AsyncClient | None" = None,
) -> HandlerRun:
    """Run a handler as HybridJobs would, and return what it did.

    `payload` is a JSON value or a model; it passes through JSON and validation, as in production.
    Exceptions of the handler, and PermanentError for an invalid payload, are raised as they are;
    pass a `run` to see what was done until then. `job_id` is a new one
    unless given; `http` replaces the client of the context.
    """
    run = HandlerRun() if run is None else run
    context = Context(
        _Recorder(run),
        job_id=job_id or new_id(),
        type=handler.type,
        attempt=attempt,
        deadline=datetime.now(UTC) + timedelta(seconds=deadline_seconds),
        checkpoint=codec.loads(to_json(checkpoint)),
        http=http,
    )
    try:
        result = await handler(handler.parse(codec.loads(to_json(payload))), context)
        run.result = codec.loads(to_json(result))
    finally:
        await context.aclose()
    return run
