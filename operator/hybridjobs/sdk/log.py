"""The logger of a context. Importing this imports structlog, so only handlers that log pay."""

import sys
from typing import Any

import structlog


def job_logger(**bound: object) -> Any:  # noqa: ANN401 - structlog's loggers are made at run time
    """JSON lines on standard error, each with `bound`; leaves structlog's configuration alone."""
    logger = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.BoundLogger,
    )
    return logger.bind(**bound)
