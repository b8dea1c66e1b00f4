from typing import Any

import pytest

from hybridjobs.controller.observe import (
    after_cancel,
    classify,
    container_started_at,
    why_not_started,
    why_refused,
)
from hybridjobs.model import Outcome
from tests.unit.controller.objects import (
    COMPLETE,
    FAILED,
    RUNNING,
    condition,
    job,
    pod,
    terminated,
)


def deleted(the_pod: dict[str, Any]) -> dict[str, Any]:
    the_pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:12Z"
    return the_pod


DISRUPTION = condition("DisruptionTarget", "EvictionByEvictionAPI", "evicted")
POLICY = condition(
    "Failed",
    "PodFailurePolicy",
    "Pod jobs/x has condition DisruptionTarget matching FailJob rule at index 0",
)


@pytest.mark.parametrize(
    ("the_job", "the_pod", "reported", "expected"),
    [
        (job(COMPLETE), pod(state=terminated(0)), None, (Outcome.SUCCEEDED, "Completed", None)),
        (job(COMPLETE), None, None, (Outcome.SUCCEEDED, "Completed", None)),
        (
            job(FAILED),
            pod(state=terminated(1, message="boom")),
            None,
            (Outcome.FAILED, "Error", "boom"),
        ),
        (job(FAILED), pod(state=terminated(2)), None, (Outcome.FAILED, "Error", "exit code 2")),
        (
            job(FAILED),
            pod(state=terminated(65)),
            None,
            (Outcome.PERMANENT, "PermanentError", "exit code 65"),
        ),
        (
            job(FAILED),
            pod(state=terminated(1, message='{"error": "no", "permanent": true}')),
            None,
            (Outcome.PERMANENT, "PermanentError", "no"),
        ),
        (
            job(FAILED),
            pod(state=terminated(1, message="cut off {")),
            {"error": "limit", "permanent": False, "retryAfter": 60},
            (Outcome.RETRY_LATER, "RetryLater", "limit"),
        ),
        (job(FAILED), pod(state=terminated(75)), None, (Outcome.DISRUPTED, "Interrupted", None)),
        (
            job(FAILED),
            pod(state=terminated(137, "OOMKilled")),
            None,
            (Outcome.OOM, "OOMKilled", "the container exceeded its memory limit"),
        ),
        (
            job(FAILED),
            pod(state=terminated(75), reason="DeadlineExceeded", message="too long"),
            None,
            (Outcome.DEADLINE, "DeadlineExceeded", "too long"),
        ),
        (
            # Seen by the Job controller when the Job's deadline had passed.
            job(condition("Failed", "DeadlineExceeded", "backstop")),
            pod(state=terminated(0, "Completed"), phase="Succeeded"),
            None,
            (Outcome.SUCCEEDED, "Completed", None),
        ),
        (
            # Taken away by a suspension, and the Job resumed without a pod until its deadline.
            job(condition("Failed", "DeadlineExceeded", "backstop")),
            deleted(pod(state=terminated(143), phase="Failed")),
            None,
            (Outcome.DISRUPTED, "PodDeleted", "its pod was deleted"),
        ),
        (
            job(condition("Failed", "DeadlineExceeded", "backstop"), activeDeadlineSeconds=12),
            deleted(pod(state=terminated(143), phase="Failed")),
            None,
            (Outcome.DEADLINE, "DeadlineExceeded", "backstop"),
        ),
        (
            job(condition("Failed", "DeadlineExceeded", "backstop")),
            None,
            None,
            (Outcome.DEADLINE, "DeadlineExceeded", "backstop"),
        ),
        (
            job(FAILED),
            pod(
                state={"waiting": {"reason": "ImagePullBackOff", "message": "m"}},
                reason="DeadlineExceeded",
            ),
            None,
            (Outcome.NEVER_STARTED, "ImagePullBackOff", "m"),
        ),
        (
            job(POLICY),
            pod(DISRUPTION, state=terminated(0)),
            None,
            (Outcome.DISRUPTED, "EvictionByEvictionAPI", "evicted"),
        ),
        (job(POLICY), None, None, (Outcome.DISRUPTED, "PodFailurePolicy", POLICY["message"])),
        (job(FAILED), None, None, (Outcome.LOST, "PodLost", FAILED["message"])),
        (
            job(FAILED),
            pod(reason="OutOfcpu", message="no room"),
            None,
            (Outcome.DISRUPTED, "OutOfcpu", "no room"),
        ),
        (
            job(FAILED),
            deleted(pod(state=terminated(143))),
            None,
            (Outcome.DISRUPTED, "PodDeleted", "its pod was deleted"),
        ),
        (
            job(FAILED),
            pod(state=RUNNING, phase="Running"),
            None,
            (Outcome.DISRUPTED, "PodDeleted", "its pod was deleted"),
        ),
        (
            job(FAILED),
            deleted(pod(state=terminated(65))),
            None,
            (Outcome.PERMANENT, "PermanentError", "exit code 65"),
        ),
        (
            job(FAILED),
            pod(state=terminated(137, "ContainerStatusUnknown", "not located")),
            None,
            (Outcome.DISRUPTED, "ContainerStatusUnknown", "not located"),
        ),
        (
            job(FAILED),
            pod(state=terminated(1, message="[" * 4000)),
            None,
            (Outcome.FAILED, "Error", "[" * 4000),
        ),
        (
            job(FAILED),
            pod(state=terminated(1, message='{"error": "e", "retryAfter": 1' + "0" * 400 + "}")),
            None,
            (Outcome.RETRY_LATER, "RetryLater", "e"),
        ),
    ],
)
def test_how_it_ended(
    the_job: dict[str, Any],
    the_pod: dict[str, Any] | None,
    reported: dict[str, Any] | None,
    expected: tuple[Outcome, str, str | None],
) -> None:
    begun = the_pod is None or container_started_at(the_pod) is not None
    end = classify(the_job, the_pod, begun=begun, reported=reported, permanent_exit_codes={65})
    assert (end.outcome, end.reason, end.message) == expected


def test_a_deadline_that_passed_before_any_start_is_another_end() -> None:
    late, told = job(condition("Failed", "DeadlineExceeded", "b")), ("QuotaExceeded", "pods=0")
    never = classify(late, None, begun=False, told=told)
    assert (never.outcome, never.reason, never.message) == (Outcome.NEVER_STARTED, *told)
    # The row knows of its start, and the pod that was seen last does not.
    pending = pod(state={"waiting": {"reason": "ContainerCreating"}})
    assert classify(late, pending, begun=True).outcome is Outcome.DEADLINE


def test_a_log_as_message_is_cut_to_its_last_line() -> None:
    ended = pod(state=terminated(1, message="Traceback:\n  line 1\nKeyError: 'x'\n\n"))
    end = classify(job(FAILED), ended, begun=True)
    assert end.message == "KeyError: 'x'"


def test_times_and_exit_code_are_the_containers() -> None:
    end = classify(job(FAILED), pod(state=terminated(3)), begun=True)
    assert end.exit_code == 3
    assert end.started_at is not None
    assert end.ended_at is not None
    assert (end.ended_at - end.started_at).total_seconds() == 10


@pytest.mark.parametrize(
    ("message", "result"),
    [
        ('{"n": 1.0}', '{"n": 1.0}'),
        ("plain words", '"plain words"'),
        ("[" * 4000, '"' + "[" * 4000 + '"'),
        (None, None),
    ],
)
def test_a_result_in_the_termination_message(message: str | None, result: str | None) -> None:
    ended = pod(state=terminated(0, "Completed", message))
    end = classify(job(COMPLETE), ended, begun=True)
    assert end.result == result


@pytest.mark.parametrize(
    ("the_job", "the_pod", "reason"),
    [
        (job(), None, "NoPod"),
        (job(suspend=True), None, "Suspended"),
        (
            job(),
            pod(
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "cpu",
                }
            ),
            "Unschedulable",
        ),
        (
            job(),
            pod(state={"waiting": {"reason": "CreateContainerConfigError"}}),
            "CreateContainerConfigError",
        ),
        (job(), pod(state={"waiting": {"reason": "ContainerCreating"}}), "NotStarted"),
    ],
)
def test_why_it_has_not_started(
    the_job: dict[str, Any], the_pod: dict[str, Any] | None, reason: str
) -> None:
    assert why_not_started(the_job, the_pod)[0] == reason


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            'pods "hj-1-x7k" is forbidden: exceeded quota: q, requested: pods=1, limited: pods=0',
            ("QuotaExceeded", "exceeded quota: q, requested: pods=1, limited: pods=0"),
        ),
        (
            'pods "x" is forbidden: failed quota: q: must specify limits.cpu for: main',
            ("QuotaUnmet", "failed quota: q: must specify limits.cpu for: main"),
        ),
        (
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": hostNetwork',
            ("PodSecurityViolated", 'violates PodSecurity "restricted:latest": hostNetwork'),
        ),
        (
            'admission webhook "w" denied the request: no',
            ("AdmissionRefused", 'admission webhook "w" denied the request: no'),
        ),
        (
            'jobs.batch "x" is forbidden: no new content, because n is being terminated',
            ("NamespaceTerminating", "no new content, because n is being terminated"),
        ),
        ("the like", ("Other", "the like")),
    ],
)
def test_why_a_create_is_refused(message: str, expected: tuple[str, str]) -> None:
    assert why_refused(message, "Other") == expected


def test_who_keeps_a_job_without_a_pod_is_heard() -> None:
    told = "QuotaExceeded", "exceeded quota"
    assert why_not_started(job(), None, told) == told
    assert why_not_started(job(suspend=True), None, told) == told
    refused = pod(state={"waiting": {"reason": "ErrImagePull", "message": "m"}})
    assert why_not_started(job(), refused, told) == ("ErrImagePull", "m")
    # Of a pod that a queue has taken away.
    assert why_not_started(job(suspend=True), refused)[0] == "Suspended"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('{"rows": [' + "1, " * 2000, (Outcome.PERMANENT, "ResultTooLarge")),
        ("é" * 2048, (Outcome.PERMANENT, "ResultTooLarge")),
        ('"' + "x" * 4094 + '"', (Outcome.SUCCEEDED, "Completed")),  # whole, and just fits
        ("x" * 4095, (Outcome.SUCCEEDED, "Completed")),
    ],
)
def test_a_result_that_was_cut_is_none(message: str, expected: tuple[Outcome, str]) -> None:
    ended = pod(state=terminated(0, "Completed", message))
    end = classify(job(COMPLETE), ended, begun=True)
    assert (end.outcome, end.reason) == expected
    assert (end.result is None) is (end.outcome is Outcome.PERMANENT)


def test_a_running_container_is_no_reason() -> None:
    assert why_not_started(job(), pod(state=RUNNING))[0] == "NotStarted"


def test_a_container_that_the_runtime_could_not_start_has_no_start() -> None:
    state = terminated(128, "StartError", "no such file")
    state["terminated"]["startedAt"] = "1970-01-01T00:00:00Z"
    end = classify(job(FAILED), pod(state=state), begun=True)
    assert (end.outcome, end.reason, end.started_at) == (Outcome.FAILED, "StartError", None)


def test_a_cancelled_pod_may_still_have_done_its_work() -> None:
    def ended(exit_code: int) -> tuple[Outcome, str | None]:
        the_pod = pod(state=terminated(exit_code, message="1"), reason="DeadlineExceeded")
        end = classify(job(FAILED), the_pod, begun=True)
        assert end.outcome is Outcome.DEADLINE
        done = after_cancel(end, the_pod)
        return done.outcome, done.result

    assert ended(143) == (Outcome.CANCELLED, None)
    assert ended(0) == (Outcome.SUCCEEDED, "1")
