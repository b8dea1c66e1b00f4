import json
import subprocess
import sys
from uuid import UUID

import pytest

from hybridjobs import tracing
from hybridjobs.ids import new_id
from hybridjobs.tracing import TRACEPARENT, attempt_context, endpoints, span
from tests.otlp import collecting

JOB = UUID("01a20b6b-59ce-70c4-919b-be41339fc912")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"

# Two processes that know the same row: one begins the attempt, the other records its end.
PROGRAM = """
import json, sys
from datetime import UTC, datetime, timedelta
from uuid import UUID
from hybridjobs import tracing

tracing.configure_tracing("test")
job, traceparent = UUID(sys.argv[1]), sys.argv[2] or None
contexts = [tracing.attempt_context(traceparent, job, number) for number in (1, 2)]
began = datetime(2026, 1, 1, tzinfo=UTC)
ended = began + timedelta(seconds=90)
tracing.tell_attempt(
    traceparent, job, 2, began=began, ended=ended, trouble="OOMKilled", attributes={}
)
tracing.flush_traces(5)
print(json.dumps(contexts))
"""


def _run(url: str, traceparent: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(JOB), traceparent],
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_SERVICE_NAME": "named"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    contexts: list[str] = json.loads(done.stdout)
    return contexts


@pytest.mark.parametrize(
    ("traceparent", "trace_id", "parent"),
    [(PARENT, TRACE, "00f067aa0ba902b7"), ("", JOB.hex, "")],
    ids=["of a request", "of a job without one"],
)
def test_a_pod_knows_the_span_that_another_process_will_tell(
    traceparent: str, trace_id: str, parent: str
) -> None:
    with collecting() as collector:
        first, second = _run(collector.url, traceparent)
        assert _run(collector.url, traceparent) == [first, second]
    attempt = collector.spans[0]
    assert attempt == collector.spans[1]
    assert (attempt.trace_id, attempt.parent, attempt.service) == (trace_id, parent, "named")
    assert attempt.traceparent == second != first
    assert (attempt.seconds, attempt.failed) == (90, True)


def test_off_contexts_are_passed_on_and_nothing_is_made() -> None:
    assert tracing._tracer is None
    assert attempt_context(PARENT, new_id(), 3) == PARENT
    assert attempt_context(None, new_id(), 3) is None
    with span("anything", PARENT, job_id=new_id()) as same:
        same.tell("a", 1)
        same.fail("reason")
    assert same.traceparent == PARENT


def test_opentelemetry_s_own_variables_switch_it() -> None:
    there = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
    assert endpoints(there) == there
    assert endpoints({}) == endpoints({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}) == {}
    assert endpoints(there | {"OTEL_SDK_DISABLED": "True"}) == {}
    assert endpoints(there | {"OTEL_TRACES_EXPORTER": "none"}) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b7-01-more",
        "",
    ],
)
def test_what_is_no_context_is_none(wrong: str) -> None:
    assert TRACEPARENT.fullmatch(PARENT.encode())
    assert not TRACEPARENT.fullmatch(wrong.encode())
