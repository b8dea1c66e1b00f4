from typing import Any

import pytest

from hybridjobs.controller.excerpts import Objects, excerpt, excerpt_of_work
from hybridjobs.controller.observe import classify, container_started_at, is_ended, why_not_started
from tests.unit.controller.objects import (
    COMPLETE,
    FAILED,
    RUNNING,
    condition,
    hybridjob,
    job,
    pod,
    terminated,
)

PODS = [
    pod(),
    pod(state=RUNNING),
    pod(state=terminated(0, "Completed", '{"pages": 3}')),
    pod(state=terminated(137, "OOMKilled")),
    pod(state=terminated(3, message='{"error": "no", "permanent": true}')),
    pod(condition("DisruptionTarget", "EvictionByEvictionAPI"), state=terminated(143)),
    pod(phase="Failed", reason="DeadlineExceeded", message="active on the node too long"),
    pod(state={"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}),
]


@pytest.mark.parametrize("the_pod", PODS)
@pytest.mark.parametrize("the_job", [job(COMPLETE), job(FAILED), job(suspend=True)])
def test_an_excerpt_reads_as_the_whole(the_job: dict[str, Any], the_pod: dict[str, Any]) -> None:
    cut_job, cut_pod = excerpt_of_work(the_job), excerpt_of_work(the_pod)
    whole = classify(the_job, the_pod, begun=False, permanent_exit_codes={3})
    assert classify(cut_job, cut_pod, begun=False, permanent_exit_codes={3}) == whole
    assert why_not_started(cut_job, cut_pod) == why_not_started(the_job, the_pod)
    assert container_started_at(cut_pod) == container_started_at(the_pod)
    assert is_ended(cut_pod) == is_ended(the_pod)
    assert cut_job["metadata"] == the_job["metadata"]


def test_what_nobody_reads_is_left_out() -> None:
    whole = job(template={"spec": {"containers": []}}, suspend=False)
    whole["metadata"]["managedFields"] = [{"manager": "hybridjobs-operator"}]
    cut = excerpt_of_work(whole)
    assert cut["spec"] == {"activeDeadlineSeconds": 1230, "suspend": False}
    assert "managedFields" not in cut["metadata"]
    assert whole["metadata"]["managedFields"]  # it belongs to the watch


def test_what_a_hybridjob_says_is_kept_whole() -> None:
    whole = hybridjob(payload={"pages": [1, 2]})
    assert excerpt(whole) == whole


def test_what_was_read_may_be_changed_and_what_is_kept_stays() -> None:
    kept = Objects()
    kept.put("one", hybridjob())
    kept["one"]["spec"]["type"] = "another"
    assert kept["one"] == hybridjob()
    assert (list(kept), len(kept), "one" in kept, kept.get("other")) == (["one"], 1, True, None)


def test_only_that_very_object_is_removed() -> None:
    kept = Objects()
    kept.put("one", hybridjob())
    assert not kept.remove("one", "hj-0")
    assert kept.uids() == {"one": "hj-1"}
    assert kept.remove("one", "hj-1")
    assert not kept.remove("one", "hj-1")
