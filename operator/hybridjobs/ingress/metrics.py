"""The ingress' figures for Prometheus."""

from collections.abc import Iterable

from prometheus_client import Histogram

from hybridjobs.counts import Counts
from hybridjobs.model import Enqueued
from hybridjobs.store.callbacks import DeliveryStatus

MAX_UNMATCHED = 1000

_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 48, 64)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 7, 8, 10)


_requests = Counts("http_requests", "Answers; 0: none was sent.", "listener", "code")
_webhooks = Counts("webhook_requests", "Webhook deliveries.", "source", "result")
_unmatched = Counts(
    "webhook_unmatched_events",
    "Events no type wants.",
    "source",
    "event",
    at_most=MAX_UNMATCHED,
)
_enqueued = Counts("jobs_enqueued", "Jobs that got their row here.", "type", "source")
_inline_runs = Counts("inline_runs", "Quick jobs' first attempts.", "type", "outcome")
_inline_seconds = Histogram(
    "hybridjobs_inline_run_seconds", "From a quick job's arrival to its outcome.", buckets=_SECONDS
)
_callbacks = Counts(
    "callback_tries",
    "Tries to deliver callbacks.",
    "result",
    known=[(status.value,) for status in DeliveryStatus],
)
_callback_seconds = Histogram(
    "hybridjobs_callback_try_seconds", "How long tries to deliver callbacks took.", buckets=_SECONDS
)
_commits = Histogram(
    "hybridjobs_group_commit_events", "Events in one commit.", buckets=_BATCH_SIZES
)


def count_request(listener: str, status: int) -> None:
    """A listener answered; 0: the client was gone, or the connection broke."""
    _requests.add(listener, str(status))


def count_webhook(source: str, result: str) -> None:
    """A delivery was accepted, replayed, unmatched, refused, or failed."""
    _webhooks.add(source, result)


def count_unmatched(source: str, event: str) -> None:
    """No type wants the event. Senders are trusted with its name, not with how many there are."""
    _unmatched.add(source, event)


def count_enqueued(rows: Iterable[Enqueued], source: str) -> None:
    """Rows are committed; replays do not count."""
    for row in rows:
        if row.created:
            _enqueued.add(row.type, source)


def observe_inline_run(type_: str, outcome: str, seconds: float) -> None:
    """A quick job's first attempt ended, `seconds` after its request had arrived."""
    _inline_runs.add(type_, outcome)
    _inline_seconds.observe(seconds)


def observe_callback(result: str, seconds: float) -> None:
    """A try ended: delivered, pending (it goes again), failed (given up), or disabled."""
    _callbacks.add(result)
    _callback_seconds.observe(seconds)


def observe_commit(events: int) -> None:
    """That many events were committed together."""
    _commits.observe(events)
