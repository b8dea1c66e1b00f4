"""What a handler raises to say how its failure is to be taken.

Exception
 ├─ PermanentError   trying again cannot help: the job fails now
 └─ RetryLater       try again at the time given; no retry is spent

Any other exception is transient: the job is retried with backoff, as its type allows.
"""

from datetime import UTC, datetime

MAX_DELAY_SECONDS = 7 * 86_400.0


class PermanentError(Exception):
    """The job cannot succeed, however often it is tried; the message says why."""


class RetryLater(Exception):  # noqa: N818 - reads as what is asked for
    """The job is to be tried again later, as after a rate limit.

    `after` is a number of seconds from now, or an aware datetime; a moment in the past means now,
    one later than in MAX_DELAY_SECONDS means then.
    """

    def __init__(self, after: float | datetime, message: str = "") -> None:
        if isinstance(after, datetime):
            if after.tzinfo is None:
                raise ValueError("RetryLater needs a datetime with a time zone")
            after = (after - datetime.now(UTC)).total_seconds()
        self.after_seconds = min(max(0.0, float(after)), MAX_DELAY_SECONDS)
        super().__init__(message or f"try again in {self.after_seconds:.0f} seconds")
