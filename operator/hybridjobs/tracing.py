"""Traces of jobs by OpenTelemetry, from the webhook to the outcome; off where no endpoint is set.

A job's row carries the context of its request (`traceparent`, W3C Trace Context), and whatever
happens to the job is a child of that span, in whatever process. A job that came without one, from
SQL or a schedule, has a trace of its own whose id is the job's.

An attempt's span ends with its outcome, which another process may record than the one that began
it, and what runs in the pod must name it before: so its id follows from job and attempt.

Off, nothing of OpenTelemetry is imported, and contexts are passed on as they came.
"""

import os
import re
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime
from hashlib import sha256
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from uuid import UUID

from hybridjobs.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attribute = str | int | float | bool

# https://www.w3.org/TR/trace-context/#traceparent-header: neither id may be zero.
TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_provider: "TracerProvider | None" = None
_tracer: "Tracer | None" = None
_trace_id: ContextVar[int | None] = ContextVar("trace_id", default=None)
_span_id: ContextVar[int | None] = ContextVar("span_id", default=None)


def endpoints(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that say where spans go; none: tracing is off."""
    if (
        environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or environment.get("OTEL_TRACES_EXPORTER") == "none"
    ):
        return {}
    return {name: environment[name] for name in _ENDPOINTS if environment.get(name)}


def configure_tracing(service: str) -> None:
    """Send this process' spans by OTLP over HTTP, as OpenTelemetry's own variables say.

    `service` names it where they do not. ConfigurationError where the extra `otel` is missing.
    """
    global _provider, _tracer  # noqa: PLW0603 - one process, one way out
    if not endpoints():
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigurationError(
            f"settings: {next(iter(endpoints()))}: traces need hybridjobs[otel]: {error}"
        ) from None
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: f"hybridjobs-{service}"}))
    _provider = TracerProvider(
        resource=resource, id_generator=_id_generator(), shutdown_on_exit=False
    )
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(_provider)  # for what handlers trace by themselves
    _tracer = _provider.get_tracer("hybridjobs")


def flush_traces(seconds: float) -> None:
    """Send what is not sent yet; a collector that is away costs no more than that. Blocks."""
    if _provider is not None:
        _provider.force_flush(int(seconds * 1000))


class Span:
    """A piece of work, while it lasts; off, only the context that it would have continued."""

    __slots__ = ("_span", "_using", "traceparent")

    def __init__(self, traceparent: str | None, span: "OtelSpan | None" = None) -> None:
        self.traceparent = traceparent
        self._span = span
        self._using: Any = None

    def tell(self, name: str, value: Attribute) -> None:
        """Add to what the span says."""
        if self._span is not None:
            self._span.set_attribute(name, value)

    def fail(self, reason: str) -> None:
        """The work went wrong."""
        if self._span is not None:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR, reason))

    def __enter__(self) -> Self:
        if self._span is not None:
            from opentelemetry.trace import use_span

            self._using = use_span(
                self._span, record_exception=False, set_status_on_exception=False
            )
            self._using.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        if self._span is None:
            return
        if kind is not None:
            # No message: it may quote the payload.
            self.tell("error.type", kind.__qualname__)
        self._using.__exit__(None, None, None)
        self._span.end()


def span(
    name: str,
    traceparent: str | None,
    *,
    job_id: UUID | None = None,
    kind: Kind = "internal",
    attributes: Mapping[str, Attribute] = MappingProxyType({}),
) -> Span:
    """A child of the context's span; without a context the beginning of a trace, the job's own."""
    if _tracer is None:
        return Span(traceparent)
    begun = _begun(name, traceparent, job_id=job_id, kind=kind, attributes=attributes)
    return Span(_written(begun), begun)


def attempt_context(traceparent: str | None, job_id: UUID, attempt: int) -> str | None:
    """What an attempt's pod is told: the context of the attempt's span, which is yet to end."""
    if _provider is None:
        return traceparent
    number = _attempt_span_id(job_id, attempt)
    found = None if traceparent is None else TRACEPARENT.fullmatch(traceparent.encode())
    if found is not None:
        return f"00-{found[1].decode()}-{number:016x}-{found[3].decode()}"
    from opentelemetry.sdk.trace.sampling import Decision

    decided = _provider.sampler.should_sample(None, job_id.int, "attempt").decision
    is_sampled = decided is Decision.RECORD_AND_SAMPLE
    return f"00-{job_id.hex}-{number:016x}-{is_sampled:02x}"


def tell_attempt(
    traceparent: str | None,
    job_id: UUID,
    attempt: int,
    *,
    began: datetime,
    ended: datetime,
    trouble: str | None,
    attributes: Mapping[str, Attribute],
) -> None:
    """The span of an attempt that is over; `trouble` is why it did not succeed."""
    if _tracer is None:
        return
    begun = _begun(
        "attempt",
        traceparent,
        job_id=job_id,
        kind="consumer",
        attributes={"hybridjobs.attempt": attempt, **attributes},
        span_id=_attempt_span_id(job_id, attempt),
        start=_nanoseconds(began),
    )
    if trouble is not None:
        Span(None, begun).fail(trouble)
    begun.end(_nanoseconds(ended))


def _begun(
    name: str,
    traceparent: str | None,
    *,
    job_id: UUID | None,
    kind: Kind,
    attributes: Mapping[str, Attribute],
    span_id: int | None = None,
    start: int | None = None,
) -> "OtelSpan":
    from opentelemetry.trace import SpanKind

    assert _tracer is not None
    named = dict(attributes)
    if job_id is not None:
        named["hybridjobs.job.id"] = str(job_id)
    trace = _trace_id.set(None if job_id is None else job_id.int)
    own = _span_id.set(span_id)
    try:
        return _tracer.start_span(
            name, _context(traceparent), SpanKind[kind.upper()], named, start_time=start
        )
    finally:
        _span_id.reset(own)
        _trace_id.reset(trace)


def _context(traceparent: str | None) -> "Context":
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if traceparent is None:
        return Context()  # not that of whatever surrounds us
    return TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())


def _written(span_: "OtelSpan") -> str:
    context = span_.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def _attempt_span_id(job_id: UUID, attempt: int) -> int:
    return int.from_bytes(sha256(f"{job_id}/{attempt}".encode()).digest()[:8])


def _nanoseconds(time: datetime) -> int:
    return int(time.timestamp() * 1_000_000) * 1000


def _id_generator() -> Any:  # noqa: ANN401 - its base is imported only where tracing is on
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        """Random ones, but for those that follow from a job."""

        def generate_span_id(self) -> int:
            return _span_id.get() or super().generate_span_id()

        def generate_trace_id(self) -> int:
            return _trace_id.get() or super().generate_trace_id()

    return Ids()
