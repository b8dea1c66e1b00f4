"""The operator's figures for Prometheus."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from time import monotonic, perf_counter

from prometheus_client import Gauge, Histogram

from hybridjobs.errors import AttemptClosed, ClusterUnavailable, DatabaseUnavailable
from hybridjobs.observed import LAGS
from hybridjobs.store.database import Database
from hybridjobs.store.queue import paused_types
from hybridjobs.store.statistics import ReadyLine, ready_by_type

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_QUEUE_SECONDS = 15.0

_reconciles = Histogram(
    "hybridjobs_reconcile_seconds", "Looks at one HybridJob.", ["result"], buckets=_SECONDS
)
_waits = Histogram(
    "hybridjobs_start_wait_seconds",
    "From the claim of an attempt to the start of its container.",
    buckets=LAGS,
)
_ready = Gauge("hybridjobs_ready_jobs", "Jobs in line for a place; told by the leader.", ["type"])
_oldest = Gauge(
    "hybridjobs_oldest_ready_seconds",
    "For how long the first job in line has been due; told by the leader.",
    ["type"],
)
_paused = Gauge("hybridjobs_paused", "1: no job of the type starts, as somebody asked.", ["type"])
_depth = Gauge("hybridjobs_workqueue_depth", "HybridJobs that wait to be looked at.")
_behind = Gauge(
    "hybridjobs_watch_behind_seconds",
    "For how long a watch has not told what a list shows, as of the last check.",
    ["resource"],
)
_age = Gauge(
    "hybridjobs_watch_age_seconds",
    "Since a check found that a watch had told all that a list shows.",
    ["resource"],
)
_leading = Gauge("hybridjobs_operator_leading", "1 in the operator that acts, else 0.")


def watch_state(*, depth: Callable[[], int], leads: Callable[[], bool]) -> None:
    """Where the gauges look when they are asked."""
    _depth.set_function(depth)
    _leading.set_function(leads)


def watch_behind(resource: str, seconds: float) -> None:
    """A watch was checked; 0: it has told everything."""
    _behind.labels(resource).set(seconds)
    if not seconds:
        seen = monotonic()
        _age.labels(resource).set_function(lambda: monotonic() - seen)


async def follow_queue(database: Database) -> None:
    """Keep the queue's gauges up to date, until cancelled: then it is another's to tell."""
    try:
        while True:
            try:
                async with database.connection() as connection:
                    lines = await ready_by_type(connection)
                    paused = await paused_types(connection)
            except DatabaseUnavailable:
                lines, paused = [], []  # no figure is better than an old one
            show_queue(lines, paused)
            await asyncio.sleep(_QUEUE_SECONDS)
    finally:
        show_queue((), ())


def show_queue(lines: Iterable[ReadyLine], paused: Iterable[str]) -> None:
    """The types with jobs in line, those that are paused, and no others."""
    _ready.clear()
    _oldest.clear()
    _paused.clear()
    for line in lines:
        _ready.labels(line.type).set(line.jobs)
        _oldest.labels(line.type).set(line.oldest_seconds)
    for type_ in paused:
        _paused.labels(type_).set(1)


@contextmanager
def reconciling() -> Iterator[None]:
    """Time one look; its result is what it raised."""
    began, result = perf_counter(), "ok"
    try:
        yield
    except AttemptClosed:
        result = "moved_on"
        raise
    except ClusterUnavailable:
        result = "cluster_unavailable"
        raise
    except DatabaseUnavailable:
        result = "database_unavailable"
        raise
    except Exception:
        result = "error"
        raise
    finally:
        _reconciles.labels(result).observe(perf_counter() - began)


def count_start(claimed_at: datetime | None, started_at: datetime) -> None:
    """A container was seen to run."""
    if claimed_at is not None:
        _waits.observe(max((started_at - claimed_at).total_seconds(), 0.0))
