"""Attempts that something happens to whenever a checkpoint is saved."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hybridjobs import codec
from hybridjobs.sdk import Context
from hybridjobs.sdk.handler import Handler


class Killed(BaseException):
    """The pod is gone; what it kept."""

    def __init__(self, checkpoint: Any) -> None:
        super().__init__(checkpoint)
        self.checkpoint = checkpoint


class _Channel:
    def __init__(self, saved: Callable[[Any], None]) -> None:
        self._saved = saved

    async def progress(self, done: int, total: int | None, message: str | None) -> None: ...

    async def save_checkpoint(self, text: str) -> None:
        self._saved(codec.loads(text))

    async def submit(self, type_: str, payload: str, key: str | None, priority: int | None) -> UUID:
        raise AssertionError


async def attempt(
    handler: Handler[Any, Any],
    payload: object,
    job_id: UUID,
    saved: Callable[[Any], None],
    *,
    checkpoint: Any = None,
) -> Any:
    """The result; `saved` is called with each checkpoint."""
    context = Context(
        _Channel(saved),
        job_id=job_id,
        type=handler.type,
        attempt=1,
        deadline=datetime.now(UTC) + timedelta(minutes=1),
        checkpoint=checkpoint,
    )
    return await handler(handler.parse(payload), context)


def dies(checkpoint: Any) -> None:
    """As `saved`: the first checkpoint is the last thing that is done."""
    raise Killed(checkpoint)


async def killed(
    handler: Handler[Any, Any], payload: object, job_id: UUID, *, saves: int = 1
) -> Any:
    """The checkpoint of an attempt that is killed when it has saved so many."""
    left = iter(range(saves - 1, -1, -1))
    try:
        await attempt(handler, payload, job_id, lambda kept: None if next(left) else dies(kept))
    except Killed as kill:
        return kill.checkpoint
    raise AssertionError(f"it ended before {saves} checkpoints")
