"""What follows from an outcome: pure decisions on retry, failure and their categories."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from hybridjobs.model import AttemptEnd, ErrorCategory, Outcome, Retry, Status

MAX_DISRUPTIONS = 5
MAX_RETRY_LATER = 20
PRIORITY_STEP = timedelta(minutes=1)

_FREE_LIMITS = {
    Outcome.DISRUPTED: MAX_DISRUPTIONS,
    Outcome.LOST: MAX_DISRUPTIONS,
    Outcome.NODE_LOST: MAX_DISRUPTIONS,
    Outcome.RETRY_LATER: MAX_RETRY_LATER,
}
_CATEGORIES = {
    Outcome.DEADLINE: ErrorCategory.TIMEOUT,
    Outcome.OVER_BUDGET: ErrorCategory.TIMEOUT,
    Outcome.OOM: ErrorCategory.OOM,
    Outcome.RETRY_LATER: ErrorCategory.RATE_LIMIT,
    Outcome.PERMANENT: ErrorCategory.VALIDATION,
    Outcome.NEVER_STARTED: ErrorCategory.INFRASTRUCTURE,
    Outcome.DISRUPTED: ErrorCategory.INFRASTRUCTURE,
    Outcome.LOST: ErrorCategory.INFRASTRUCTURE,
    Outcome.NODE_LOST: ErrorCategory.INFRASTRUCTURE,
}


@dataclass(frozen=True, slots=True)
class JobHistory:
    """What of a job's past bears on its future."""

    retry_count: int
    max_retries: int
    cancel_requested: bool = False
    free_retries: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """The job ends here."""

    status: Status


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt follows, not before `run_at`."""

    run_at: datetime
    spends_retry: bool


def after_attempt(
    end: AttemptEnd, history: JobHistory, retry: Retry, *, now: datetime, jitter: float
) -> Finish | Again:
    """Decide what follows an attempt's end.

    `history.free_retries` is how often this job has already ended with this very outcome; `jitter`
    a random number in [0, 1) (full jitter: https://aws.amazon.com/builders-library, "Timeouts,
    retries and backoff with jitter").
    """
    if end.outcome is Outcome.SUCCEEDED:
        return Finish(Status.COMPLETED)
    # A cancel decides over every failure: the caller no longer wants the job.
    if end.outcome is Outcome.CANCELLED or history.cancel_requested:
        return Finish(Status.CANCELLED)
    if end.outcome is Outcome.PERMANENT:
        return Finish(Status.FAILED)
    if end.outcome is Outcome.DEADLINE and retry.on_deadline == "Fail":
        return Finish(Status.FAILED)
    if end.outcome is Outcome.OOM and retry.on_oom == "Fail":
        return Finish(Status.FAILED)
    if end.outcome is Outcome.OVER_BUDGET:
        # Going on as a pod is no retry; but a type that may not run twice must not.
        return Again(now, spends_retry=False) if history.max_retries else Finish(Status.FAILED)
    limit = _FREE_LIMITS.get(end.outcome)
    if limit is not None and history.free_retries < limit:
        return Again(now + _seconds(end.retry_after_seconds or 0.0), spends_retry=False)
    if history.retry_count >= history.max_retries:
        return Finish(Status.FAILED)
    delay = end.retry_after_seconds
    if delay is None:
        delay = jitter * backoff_ceiling_seconds(retry, history.retry_count)
    return Again(now + _seconds(delay), spends_retry=True)


def may_retry_for_free(outcome: Outcome) -> bool:
    """Whether such an end spends no retry, up to a limit."""
    return outcome in _FREE_LIMITS


def backoff_ceiling_seconds(retry: Retry, retries: int) -> float:
    """The longest wait before the next try, after `retries` earlier ones."""
    # An exponent beyond this overflows a float; the maximum applies long before.
    return min(retry.max_seconds, retry.base_seconds * retry.factor ** min(retries, 64))


def category(end: AttemptEnd) -> ErrorCategory | None:
    """The kind of trouble an attempt ended in; None for success and cancellation."""
    if end.outcome in (Outcome.SUCCEEDED, Outcome.CANCELLED):
        return None
    return _CATEGORIES.get(end.outcome, ErrorCategory.UNKNOWN)


def order_key(run_at: datetime, priority: int) -> datetime:
    """The place in line: fixed when the job is queued, so that waiting alone moves it forward."""
    return run_at - priority * PRIORITY_STEP


def _seconds(delay: float) -> timedelta:
    return timedelta(seconds=max(0.0, delay))


def jitter() -> float:
    """The random part of a backoff."""
    return random.random()  # noqa: S311 - spreads load, guards nothing
