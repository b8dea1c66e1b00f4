"""Exit codes: what a script can tell apart."""

from enum import IntEnum

from hybridjobs.errors import ConfigurationError, HybridJobsError, InvalidInput, Unavailable


class Exit(IntEnum):
    """See the epilog of `hybridjobs --help`."""

    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    UNAVAILABLE = 5
    TIMEOUT = 6
    INTERRUPTED = 130


class CommandError(HybridJobsError):
    """A command ends with this message and code."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code


def exit_for(error: HybridJobsError) -> Exit:
    """The code that an error of ours ends the program with."""
    match error:
        case CommandError():
            return error.code
        case Unavailable():
            return Exit.UNAVAILABLE
        case InvalidInput():
            return exit_of(error.status)
        case ConfigurationError():
            return Exit.USAGE
        case _:
            return Exit.FAILED


def exit_of(status: int) -> Exit:
    """The code that an answer of the API, from 400 on, ends the program with."""
    if status in (401, 403):
        return Exit.NOT_ALLOWED
    if status == 404:
        return Exit.NOT_FOUND
    if status in (408, 429, 502, 503, 504):
        return Exit.UNAVAILABLE
    # 409: what was asked for is well said, and not possible as things stand.
    return Exit.USAGE if status < 500 and status != 409 else Exit.FAILED
