"""The ingress' figures for Prometheus, in a registry of their own."""

from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from hybridjobs.model import Enqueued

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 7, 8, 10)


class Metrics:
    """Every metric, written by methods that cost no more than a dict look-up and an addition."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        requests = self._counter("http_requests", "Answers by listener and status code.", "code")
        webhooks = self._counter("webhook_requests", "Webhook deliveries by result.", "result")
        del requests, webhooks
