"""Logging of every process: one line an event, JSON for machines or coloured for people.

What lines are about is bound once, where a process turns to it (`about`), and stands in every line
until it turns away: those of libraries and warnings too. A worker's whole life is about one
attempt, so that it binds it for good, for lines of any thread.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal
from uuid import UUID

if TYPE_CHECKING:
    from structlog.typing import Processor

    from hybridjobs.settings import LogSettings

Form = Literal["json", "console"]

# Their INFO lines are one a request and one an object event.
_NOISY = ("httpx", "httpcore", "uvicorn", "kopf.objects", "aiohttp.access", "sse_starlette")


def configure_logging(settings: "LogSettings") -> None:
    """Send structlog and the standard library's loggers to standard error, in one form."""
    import structlog

    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    configure_standard_logging(settings.log_level, settings.log_format)


def configure_standard_logging(
    level: str = "info", form: Form = "json", **bound: str | int
) -> None:
    """As `configure_logging`, without structlog's own loggers; `bound` is part of every line.

    For processes that may have nothing to say: structlog is imported with the first line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(form, bound))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    sys.excepthook = lambda *error: root.critical("uncaught exception", exc_info=error)
    threading.excepthook = _ended_thread
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)


@contextmanager
def about(job_id: UUID, attempt: int | None = None) -> Iterator[None]:
    """Inside, every line of this task has the job's id, and the attempt where it is known."""
    from structlog.contextvars import bound_contextvars

    known = {} if attempt is None else {"attempt": attempt}
    with bound_contextvars(job_id=str(job_id), **known):
        yield


class _Formatter(logging.Formatter):
    """structlog's, which is made of the first line."""

    def __init__(self, form: Form, bound: dict[str, str | int]) -> None:
        super().__init__()
        self._form = form
        self._bound = bound
        self._formatter: logging.Formatter | None = None

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        if self._formatter is None:
            self._formatter = _formatter(self._form, self._bound)
        return self._formatter.format(record)


def _formatter(form: Form, bound: dict[str, str | int]) -> logging.Formatter:
    import structlog

    def bind(_: object, __: str, event: "structlog.typing.EventDict") -> dict[str, object]:
        return {**event, **bound}

    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, bind, renderer],
    )


def _shared() -> "list[Processor]":
    import structlog

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]


def _ended_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is None or isinstance(ended.exc_value, SystemExit):
        return
    name = ended.thread.name if ended.thread else "unknown"
    error = (ended.exc_type, ended.exc_value, ended.exc_traceback)
    logging.getLogger().error("thread %s ended by an exception", name, exc_info=error)
