"""What can be seen of a release from the outside: a job's trace, its log lines, the figures."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.cluster import current
from tests.e2e.conftest import PYTHON
from tests.e2e.release import (
    IMAGE,
    ROOT,
    Access,
    Release,
    delivery_of,
    eventually,
    unique_key,
)
from tests.otlp import Collector, Span, collecting
from tests.recorded import Delivery, signed_headers

pytestmark = pytest.mark.timeout(400)

NAMESPACE = "hybridjobs-e2e-traces"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SENDER = f"00-{TRACE}-00f067aa0ba902b7-01"
ANOTHER = "0af7651916cd43dd8448eb211c80319c"
# Shows its environment's context as its result.
SHOWS = """
import json, os
told = {name: os.environ.get(name) for name in ("TRACEPARENT", "OTEL_EXPORTER_OTLP_ENDPOINT")}
open("/dev/termination-log", "w").write(json.dumps(told))
"""
CHARTS = ROOT / "charts" / "hybridjobs" / "files"
# The figures that alerts and the dashboard name.
NAMED = {
    name
    for file in ("alerts.yaml", "dashboard.json")
    for name in re.findall(r"hybridjobs_\w+", (CHARTS / file).read_text())
}
# What is sent in batches is sent at once.
FAST = [{"name": "OTEL_BSP_SCHEDULE_DELAY", "value": "100"}]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting(current().host_address) as collector:
        yield collector


@pytest.fixture(scope="module")
async def traced(collector: Collector) -> AsyncIterator[Release]:
    """A second release, which sends its traces to this machine."""
    shows = {
        "image": IMAGE,
        "command": [PYTHON, "-c", SHOWS],
        "deadlineSeconds": 60,
        "events": ["github/issues.opened"],
    }
    values = {
        "tracing": {"endpoint": collector.url},
        "types": {"extra": {"test/shows": shows}},
        "operator": {"replicas": 1, "extraEnv": FAST},
        "ingress": {"inlineChildren": 0, "extraEnv": FAST},
    }
    release = Release(current(), NAMESPACE, values=values, say=print)
    release.install_anew()
    yield release
    release.uninstall()


async def test_a_webhook_s_trace_is_in_its_row_its_resource_its_pod_and_at_the_collector(
    traced: Release, collector: Collector
) -> None:
    async with traced.access() as access:
        job = await _completed(access, delivery_of("issues", "opened"), SENDER)
        [row] = await access.sql(
            "SELECT traceparent, resource_name FROM hybridjobs.background_jobs WHERE id = %s",
            job["id"],
        )
    resource = traced.object("hybridjob", row["resource_name"])
    spans = await _spans(collector, TRACE, {"receive", "enqueue", "dispatch", "attempt"})
    assert spans["receive"].parent == SENDER.split("-")[2]
    assert row["traceparent"] == spans["receive"].traceparent
    assert {spans[name].parent for name in ("enqueue", "dispatch", "attempt")} == {
        spans["receive"].id
    }
    attempt = spans["attempt"]
    assert attempt.service == "hybridjobs-operator"
    assert attempt.attributes["hybridjobs.job.id"] == job["id"]
    assert attempt.attributes["hybridjobs.outcome"] == "succeeded"
    assert job["result"] == {
        "TRACEPARENT": attempt.traceparent,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
    }
    annotations = resource["metadata"]["annotations"]
    assert annotations["hybridjobs.dev/traceparent"] == attempt.traceparent


async def test_a_handler_in_a_pod_goes_on_with_its_attempt_s_trace(
    traced: Release, collector: Collector
) -> None:
    async with traced.access() as access:
        sender = f"00-{ANOTHER}-00f067aa0ba902b7-01"
        await _completed(access, delivery_of("pull_request", "opened"), sender)
    spans = await _spans(collector, ANOTHER, {"receive", "attempt", "handler"})
    handler = spans["handler"]
    assert handler.service == "hybridjobs-worker"
    assert handler.parent == spans["attempt"].id


async def _completed(access: Access, delivery: Delivery, traceparent: str) -> dict[str, Any]:
    """The job of a delivery that is part of a trace."""
    headers = signed_headers(access.webhook_secret, delivery, delivery_id=unique_key())
    answer = await access.client.post(
        f"{access.webhooks}/webhooks/github",
        content=delivery.payload,
        headers=headers | {"traceparent": traceparent},
    )
    assert answer.status_code == 202, answer.text
    [accepted] = answer.json()["jobs"]
    job = await access.until(accepted["id"])
    assert job["status"] == "completed", job
    return job


async def _spans(collector: Collector, trace_id: str, names: set[str]) -> dict[str, Span]:
    """Those of the trace, as soon as these are among them."""

    async def look() -> dict[str, Span] | None:
        spans = collector.trace(trace_id)
        return spans if spans.keys() >= names else None

    return await eventually(look, seconds=30, what=f"the spans {sorted(names)} to come")


async def test_every_line_is_json_and_those_of_a_job_name_it(
    release: Release, access: Access
) -> None:
    job_id = await access.submit("test/script", {"exit": 1}, maxRetries=0)
    assert (await access.until(job_id))["status"] == "failed"
    lines = {}
    for component in ("ingress", "operator"):
        log = release.kubectl(
            "logs",
            f"--selector=app.kubernetes.io/component={component}",
            f"--container={component}",
            "--tail=-1",
        )
        lines[component] = [json.loads(line) for line in log.splitlines()]
        assert lines[component]
        assert all(line["event"] and line["level"] for line in lines[component])
    ours = [line for line in lines["operator"] if line.get("job_id") == job_id]
    assert {(line["event"], line["attempt"]) for line in ours} >= {
        ("attempt begun", 1),
        ("attempt ended", 1),
    }
    # kopf's own lines are among them.
    assert [line for line in lines["operator"] if line.get("logger", "").startswith("kopf")]


async def test_every_figure_that_is_shown_or_alerted_on_is_told(
    release: Release, access: Access
) -> None:
    told: set[str] = set()
    for component in ("ingress", "operator"):
        for pod in release.objects("pods", f"app.kubernetes.io/component={component}"):
            name = pod["metadata"]["name"]
            path = f"/api/v1/namespaces/{release.namespace}/pods/{name}:9090/proxy/metrics"
            text = release.kubectl("get", "--raw", path)
            for family, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE):
                ends = {"histogram": ("_bucket", "_count", "_sum")}.get(kind, ("",))
                told |= {f"{family}{end}" for end in ends}
    assert told >= NAMED, NAMED - told
