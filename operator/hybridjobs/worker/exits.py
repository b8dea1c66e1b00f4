"""Exit codes of the worker: what a pod says even when nothing else can be said."""

from enum import IntEnum


class Exit(IntEnum):
    """See the worker contract in docs/handlers.md."""

    SUCCESS = 0
    TRANSIENT = 1
    USAGE = 2  # only of `hybridjobs run`
    PERMANENT = 65  # EX_DATAERR of sysexits.h; a type's permanentExitCodes by default
    INTERRUPTED = 75  # EX_TEMPFAIL: ended from outside, with work left to do
