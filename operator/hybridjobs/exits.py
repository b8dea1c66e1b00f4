"""How an attempt ended, by its main process' exit and what that process said: no I/O.

The same for a container and for a local process: see "Other languages" in docs/handlers.md.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from hybridjobs import codec
from hybridjobs.model import AttemptEnd, Outcome

EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: ended on request, work left to do
MAX_TERMINATION_MESSAGE_BYTES = 4096  # the last of a longer one, as the kubelet keeps it
_LONG_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class Account:
    """What the worker said of its failure."""

    error: str | None = None
    permanent: bool = False
    retry_after_seconds: float | None = None

    @classmethod
    def read(cls, text: str | None, reported: dict[str, Any] | None) -> "Account":
        """By the API first, else from the termination message."""
        parsed: object = reported
        if parsed is None and text:
            try:
                parsed = codec.loads(text)
            except (ValueError, RecursionError):
                parsed = None
        if not isinstance(parsed, dict) or not isinstance(parsed.get("error"), str):
            # Not JSON: the end of the log, whose last line is the most telling one.
            lines = (text or "").split("\n")
            return cls(error=next((line for line in reversed(lines) if line.strip()), None))
        after = parsed.get("retryAfter")
        seconds = None
        if isinstance(after, int | float) and not isinstance(after, bool):
            # An integer of a thousand digits is JSON too, and no float.
            seconds = float(min(after, _LONG_SECONDS))
        return cls(parsed["error"], parsed.get("permanent") is True, seconds)


def failure(
    exit_code: int | None, account: Account, *, permanent_exit_codes: Collection[int], reason: str
) -> tuple[Outcome, str, str | None]:
    """Outcome, reason and message of an exit other than 0; `reason` names a transient one."""
    if exit_code == EXIT_INTERRUPTED:
        return Outcome.DISRUPTED, "Interrupted", account.error
    message = account.error or f"exit code {exit_code}"
    if account.permanent or exit_code in permanent_exit_codes:
        return Outcome.PERMANENT, "PermanentError", message
    if account.retry_after_seconds is not None:
        return Outcome.RETRY_LATER, "RetryLater", message
    return Outcome.FAILED, reason, message


def after_cancel(end: AttemptEnd, message: str | None) -> AttemptEnd:
    """The same end where a cancel was asked for, which lowers the deadline to end the attempt.

    `message` is the termination message.
    """
    if end.outcome is not Outcome.DEADLINE:
        return end
    if end.exit_code == 0:
        # Done in the grace period: its result counts.
        done = replace(end, outcome=Outcome.SUCCEEDED, reason="Completed", message=None)
        return with_result(done, message)
    return replace(end, outcome=Outcome.CANCELLED, reason="Cancelled", message=None)


def with_result(end: AttemptEnd, message: str | None) -> AttemptEnd:
    """A process that exits 0 may leave its result, as JSON, in the termination message."""
    if not message:
        return end
    try:
        codec.loads(message)
    except (ValueError, RecursionError):
        if len(message.encode()) >= MAX_TERMINATION_MESSAGE_BYTES:
            cut = (
                "the result was cut: a termination message has room for"
                f" {MAX_TERMINATION_MESSAGE_BYTES} bytes, the worker API for more"
            )
            return replace(end, outcome=Outcome.PERMANENT, reason="ResultTooLarge", message=cut)
        message = codec.dumps(message)
    return replace(end, result=message)
