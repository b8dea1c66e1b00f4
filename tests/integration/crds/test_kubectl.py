"""What people see and select in a terminal."""

import json
import re
from typing import Any

import pytest

from tests.integration.crds.api import Api, hybridjob, hybridjobschedule

JOB_ID = "01936f3a-7c11-7abc-8def-0123456789ab"
STATUSES: dict[str, dict[str, Any]] = {
    "shown-completed": {
        "state": "completed",
        "attempt": 2,
        "deadlineSeconds": 3600,
        "duration": "3m5s",
        "jobName": f"hj-{JOB_ID}-2",
        "podName": f"hj-{JOB_ID}-2-x7k2p",
        "reason": "Succeeded",
        "conditions": [
            {
                "type": "Finished",
                "status": "True",
                "reason": "Succeeded",
                "lastTransitionTime": "2026-11-24T02:00:00Z",
            }
        ],
    },
    "shown-queued": {"state": "queued", "attempt": 0, "deadlineSeconds": 900},
}


@pytest.fixture(scope="module")
def shown(api: Api) -> Api:
    """Two HybridJobs with a status each."""
    for name, status in STATUSES.items():
        assert api.send("create", hybridjob(name, type="test/shown")).accepted
        assert (done := api.patch(name, {"status": status}, "--subresource=status")).accepted, done
    return api


def _table(api: Api, *options: str) -> dict[str, dict[str, str]]:
    """`kubectl get` as rows by name."""
    text = api.must(
        *("get", f"hybridjobs.{api.group}", "--field-selector", "spec.type=test/shown", *options)
    )
    return _rows(text)


def _rows(text: str) -> dict[str, dict[str, str]]:
    """A table of kubectl as rows by name."""
    head, *lines = text.splitlines()
    starts = [match.start() for match in re.finditer(r"\S+", head)]
    columns = list(zip(starts, [*starts[1:], None], strict=True))
    rows = [
        {head[begin:end].strip(): line[begin:end].strip() for begin, end in columns}
        for line in lines
    ]
    return {row["NAME"]: row for row in rows}


def test_a_line_tells_the_state_and_its_limits(shown: Api) -> None:
    rows = _table(shown)
    done = rows["shown-completed"]
    assert list(done) == ["NAME", "TYPE", "STATE", "ATTEMPT", "DEADLINE", "DURATION", "AGE"]
    assert rows["shown-queued"]["DURATION"] == ""
    assert done | {"AGE": ""} == {
        "NAME": "shown-completed",
        "TYPE": "test/shown",
        "STATE": "completed",
        "ATTEMPT": "2",
        "DEADLINE": "3600",
        "DURATION": "3m5s",
        "AGE": "",
    }


def test_wide_names_job_pod_and_reason(shown: Api) -> None:
    rows = _table(shown, "-o", "wide", "--field-selector", "status.state=completed")
    done = rows["shown-completed"]
    assert done["JOB"] == f"hj-{JOB_ID}-2"
    assert done["POD"] == f"hj-{JOB_ID}-2-x7k2p"
    assert done["REASON"] == "Succeeded"


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("status.state=completed", {"shown-completed"}),
        ("status.state!=completed,spec.type=test/shown", {"shown-queued"}),
        (f"spec.jobId={JOB_ID},spec.type=test/shown", set()),
    ],
)
def test_hybridjobs_are_selected_by_field(shown: Api, selector: str, found: set[str]) -> None:
    text = shown.must(
        *("get", f"hybridjobs.{shown.group}", "--field-selector", selector, "-o", "json")
    )
    assert {each["metadata"]["name"] for each in json.loads(text)["items"]} == found


def test_one_waits_for_the_end_whichever_it_is(shown: Api) -> None:
    resource = f"hybridjobs.{shown.group}/shown-completed"
    shown.must("wait", resource, "--for=condition=Finished", "--timeout=60s")


def test_a_status_leaves_the_spec_and_a_spec_the_status(shown: Api) -> None:
    both = {"spec": {"priority": 7}, "status": {"message": "hello"}}
    assert shown.patch("shown-queued", both, "--subresource=status").accepted
    text = shown.must("get", f"hybridjobs.{shown.group}", "shown-queued", "-o", "json")
    body = json.loads(text)
    assert "priority" not in body["spec"]
    assert body["status"]["message"] == "hello"
    assert body["metadata"]["generation"] == 1


def test_an_impossible_state_is_refused(shown: Api) -> None:
    answer = shown.patch("shown-queued", {"status": {"state": "lost"}}, "--subresource=status")
    assert not answer.accepted
    assert "status.state" in answer.error


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("hybridjobs", "kubectl wait hj/NAME --for=condition=Finished"),
        ("hybridjobs.spec.cancel", "Cannot be taken back"),
        ("hybridjobtypes.spec.retry", "spends no retry"),
        ("hybridjobtypes.spec.podTemplate", "restricted Pod Security"),
        ("hybridjobschedules.spec.timeZone", "that comes twice fires the first time"),
    ],
)
def test_explain_teaches(api: Api, path: str, words: str) -> None:
    text = api.must("explain", path, f"--api-version={api.group}/v1alpha1")
    assert words in " ".join(text.split())


def test_a_schedules_line_tells_when_it_fires(api: Api) -> None:
    plural = "hybridjobschedules"
    made = api.send("create", hybridjobschedule("shown", schedule="30 2 * * *"))
    assert made.accepted, made.error
    status = {
        "active": 1,
        "nextScheduleTime": "2026-11-24T02:30:00Z",
        "history": [{"tickAt": "2026-11-23T02:30:00Z", "decision": "skipped"}],
        "conditions": [
            {
                "type": "Accepted",
                "status": "True",
                "reason": "Scheduled",
                "lastTransitionTime": "2026-11-24T02:00:00Z",
            }
        ],
    }
    change = {"status": status}
    done = api.patch("shown", change, "--subresource=status", plural=plural)
    assert done.accepted, done.error
    row = _rows(api.must("get", f"{plural}.{api.group}", "shown", "-o", "wide"))["shown"]
    assert row | {"AGE": ""} == {
        "NAME": "shown",
        "SCHEDULE": "30 2 * * *",
        "ZONE": "UTC",
        "TYPE": "test/sync",
        "SUSPEND": "false",
        "LAST": "",
        "NEXT": "2026-11-24T02:30:00Z",
        "AGE": "",
        "ACCEPTED": "True",
        "ACTIVE": "1",
        "POLICY": "Allow",
    }


def test_the_category_lists_every_kind(shown: Api) -> None:
    names = shown.must("api-resources", "--categories=hybrid", f"--api-group={shown.group}")
    assert {line.split()[-1] for line in names.splitlines()[1:]} == {
        "HybridJob",
        "HybridJobType",
        "HybridJobSchedule",
    }
