"""The ingress' figures for Prometheus, in a registry of their own."""

from collections.abc import Iterable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from hybridjobs.model import Enqueued

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()

_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 7, 8, 10)


class _Counts:
    """A counter whose children are kept in a dict: `labels()` costs ten times the addition."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._children: dict[tuple[str, ...], Counter] = {}

    def add(self, *labels: str) -> None:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._counter.labels(*labels)
        child.inc()


class Metrics:
    """Every metric of the ingress; the methods say what happened."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)

        def counts(name: str, help_: str, *labels: str) -> _Counts:
            return _Counts(Counter(f"hybridjobs_{name}", help_, labels, registry=registry))

        self._requests = counts("http_requests", "Answers.", "listener", "code")
        self._webhooks = counts("webhook_requests", "Webhook deliveries.", "source", "result")
        self._unmatched = counts(
            "webhook_unmatched_events", "Events that no type wants.", "source", "event"
        )
        self._enqueued = counts("jobs_enqueued", "Rows made here.", "type", "source")
        self._inline_runs = counts("inline_runs", "Quick jobs run here.", "type", "outcome")
        self._inline_seconds = Histogram(
            "hybridjobs_inline_run_seconds",
            "From the request's arrival to the outcome.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._commit_sizes = Histogram(
            "hybridjobs_group_commit_events",
            "Requests in one commit.",
            buckets=_BATCH_SIZES,
            registry=registry,
        )

    def request(self, listener: str, status: int) -> None:
        """A listener answered; status 0: the connection broke without an answer."""
        self._requests.add(listener, str(status))

    def webhook(self, source: str, result: str) -> None:
        """A delivery was accepted, replayed, unmatched, refused or failed."""
        self._webhooks.add(source, result)

    def unmatched(self, source: str, event: str) -> None:
        """No type wants the event (one that was signed, so that the names are few)."""
        self._unmatched.add(source, event)

    def enqueued(self, rows: Iterable[Enqueued], source: str) -> None:
        """Rows are committed; replays do not count."""
        for row in rows:
            if row.created:
                self._enqueued.add(row.type, source)

    def inline_run(self, type_: str, outcome: str, seconds: float) -> None:
        """A quick job's first attempt ended."""
        self._inline_runs.add(type_, outcome)
        self._inline_seconds.observe(seconds)

    def commit(self, size: int) -> None:
        """A group commit of `size` requests is durable."""
        self._commit_sizes.observe(size)

    def text(self) -> bytes:
        """All of it in Prometheus' text format, of CONTENT_TYPE."""
        return generate_latest(self._registry)
