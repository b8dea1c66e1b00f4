"""What users import to write handlers. Tests of handlers use `hybridjobs.sdk.testing`."""

from hybridjobs.sdk.context import Context
from hybridjobs.sdk.errors import PermanentError, RetryLater
from hybridjobs.sdk.handler import Handler, handler

__all__ = ["Context", "Handler", "PermanentError", "RetryLater", "handler"]
