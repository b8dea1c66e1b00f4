"""Runs one handler to its end: a value that says how it went. Knows nothing of where it runs."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hybridjobs import codec, tracing
from hybridjobs.sdk.context import Context
from hybridjobs.sdk.errors import PermanentError, RetryLater
from hybridjobs.sdk.handler import Handler
from hybridjobs.sdk.values import to_json

MAX_ERROR_CHARACTERS = 4000

_TYPE = "hybridjobs.job.type"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Completed:
    """The handler returned; `result` is JSON text."""

    result: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The handler failed, for good if `permanent`; `retry_after_seconds` when it named a time."""

    error: str
    permanent: bool = False
    retry_after_seconds: float | None = None

    def document(self, max_characters: int = MAX_ERROR_CHARACTERS) -> dict[str, object]:
        """As the worker contract writes it, with `error` cut."""
        return {
            "error": self.error[:max_characters],
            "permanent": self.permanent,
            "retryAfter": self.retry_after_seconds,
        }


End = Completed | Failure

CANCELLED = Failure("the handler cancelled itself")


async def run(handler: Handler[Any, Any], payload: object, context: Context) -> End:
    """Validate the payload, call the handler, and say how it ended.

    Never raises but CancelledError, and that only when this very task was cancelled.
    """
    try:
        with tracing.span("handler", context.traceparent, attributes={_TYPE: handler.type}):
            result = await handler(handler.parse(payload), context)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return CANCELLED
    except SystemExit as exit_:
        return Failure(f"the handler called exit({exit_.code!r})")
    except BaseException as error:  # a handler's fault of any kind is an outcome, never ours
        if not _planned(error):
            log.exception("handler %s failed", handler.type)
        return failure(error)
    finally:
        await context.aclose()
    try:
        return Completed(to_json(result))
    except (TypeError, ValueError, RecursionError) as error:
        # The work is done: to do it again gives the same result.
        return Failure(printable(f"the result has no JSON form: {error}"), permanent=True)


def failure(error: BaseException) -> Failure:
    """What an exception means. Of a group, the gravest member decides."""
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, PermanentError):
            return Failure(_message(leaf), permanent=True)
    waits = [leaf for leaf in leaves if isinstance(leaf, RetryLater)]
    if waits:
        longest = max(waits, key=lambda wait: wait.after_seconds)
        return Failure(_message(longest), retry_after_seconds=longest.after_seconds)
    return Failure(_message(leaves[0]))


def progress_document(done: int, total: int | None, message: str | None) -> str:
    """How far a handler has come, as JSON text; TypeError where that is no JSON.

    It is the handler that is to hear of it: where it is sent, nobody is there to catch that.
    """
    shown = None if message is None else printable(message)
    return codec.dumps({"done": done, "total": total, "message": shown})


def printable(text: str) -> str:
    """`text` as Postgres can hold it: Unicode without NUL, and not without end."""
    return (
        text[:MAX_ERROR_CHARACTERS]
        .replace("\x00", "\N{REPLACEMENT CHARACTER}")
        .encode("utf-8", "replace")
        .decode()
    )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    else:
        yield error


def _planned(error: BaseException) -> bool:
    return isinstance(error, RetryLater | PermanentError) and error.__cause__ is None


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = "(its message cannot be shown)"
    name = type(error).__qualname__
    if isinstance(error, PermanentError | RetryLater):
        return printable(text or name)
    return printable(f"{name}: {text}" if text else name)
