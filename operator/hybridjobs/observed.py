"""What is told of work that more than one process does: figures, and spans of attempts."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from prometheus_client import Histogram

from hybridjobs import tracing
from hybridjobs.counts import Counts
from hybridjobs.model import AttemptEnd, Outcome

MAX_REASONS = 1000  # of all types together; what the kubelet and the runtime call them is theirs

LAGS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
_WAITS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400)
_DURATIONS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)

_ended = Counts(
    "attempts_ended", "Attempts that ended.", "type", "outcome", "reason", at_most=MAX_REASONS
)
_durations = Histogram(
    "hybridjobs_attempt_seconds",
    "From the start of an attempt's container, or inline run, to its end.",
    ["type"],
    buckets=_DURATIONS,
)
_lag = Histogram(
    "hybridjobs_record_lag_seconds",
    "From the end of an attempt's container to its outcome in the database.",
    buckets=LAGS,
)
_waits = Histogram(
    "hybridjobs_queue_wait_seconds",
    "From when an attempt was due to its claim.",
    ["type"],
    buckets=_WAITS,
)
_requests = Counts(
    "kubernetes_requests", "Requests to the Kubernetes API; code 0: no answer.", "verb", "code"
)


@dataclass(frozen=True, slots=True)
class EndedAttempt:
    """An attempt whose outcome was recorded just now, as its row has it."""

    job_id: UUID
    attempt: int
    type: str
    traceparent: str | None
    claimed_at: datetime
    started_at: datetime | None
    ended_at: datetime


def kubernetes_answered(verb: str, status: int) -> None:
    """The API server answered; 0: it did not."""
    _requests.add(verb, str(status))


def attempt_claimed(type_: str, waited_seconds: float) -> None:
    """An attempt was claimed, so long after it was due."""
    _waits.labels(type_).observe(max(waited_seconds, 0.0))


def attempt_ended(row: EndedAttempt, end: AttemptEnd, now: datetime) -> None:
    """An outcome was recorded, and changed the row."""
    _ended.add(row.type, end.outcome.value, end.reason)
    if row.started_at is not None:
        _durations.labels(row.type).observe((row.ended_at - row.started_at).total_seconds())
    if end.ended_at is not None:
        # Machines' clocks differ.
        _lag.observe(max((now - end.ended_at).total_seconds(), 0.0))
    tracing.tell_attempt(
        row.traceparent,
        row.job_id,
        row.attempt,
        began=row.claimed_at,
        ended=row.ended_at,
        trouble=None if end.outcome is Outcome.SUCCEEDED else end.reason,
        attributes={"hybridjobs.job.type": row.type, "hybridjobs.outcome": end.outcome.value},
    )
