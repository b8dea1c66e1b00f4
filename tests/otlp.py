"""A collector of OpenTelemetry's: takes spans by OTLP over HTTP, and shows them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """One that came; `parent` is empty for the beginning of a trace."""

    service: str
    name: str
    trace_id: str
    id: str
    parent: str
    attributes: dict[str, Any]
    failed: bool
    seconds: float

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.id}-01"


@dataclass
class Collector:
    """What has come so far; `url` is what OTEL_EXPORTER_OTLP_ENDPOINT names."""

    url: str
    spans: list[Span] = field(default_factory=list)

    def trace(self, trace_id: str) -> dict[str, Span]:
        """The spans of a trace by their names, of which each is there once."""
        found = [each for each in self.spans if each.trace_id == trace_id]
        by_name = {each.name: each for each in found}
        assert len(by_name) == len(found), found
        return by_name


@contextmanager
def collecting(host: str = "127.0.0.1") -> Iterator[Collector]:
    """A collector, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            collector.spans += _spans(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer((host, 0), Handler)
    collector = Collector(f"http://{host}:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        service = _attributes(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    service=service,
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    attributes=_attributes(span.attributes),
                    failed=span.status.code == 2,
                    seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
