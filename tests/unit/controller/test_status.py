from dataclasses import replace
from datetime import UTC, datetime

import pytest

from hybridjobs.controller.status import hybridjob_status, not_accepted_status
from hybridjobs.model import Status
from tests.unit.controller.objects import hybridjob, job, pod
from tests.unit.controller.test_decide import BACKOFF, BOUND, COMPLETED, NOW, OPEN, STARTED

LATER = datetime(2026, 1, 2, tzinfo=UTC)


def _conditions(status: dict[str, object]) -> dict[str, str]:
    return {each["type"]: each["status"] for each in status["conditions"]}  # type: ignore[attr-defined]


def test_a_completed_job() -> None:
    row = replace(COMPLETED, duration_ms=61_500, outcome_reason="Completed")
    status = hybridjob_status(row, hybridjob(), job=job(), pod=pod(), now=NOW)
    assert status["state"] == "completed"
    assert status["duration"] == "1m1s"
    assert status["finishedAt"] == "2026-01-01T00:01:00Z"
    assert _conditions(status) == {
        "Accepted": "True",
        "Started": "True",
        "Finished": "True",
        "Succeeded": "True",
        "OutcomeRecorded": "True",
    }


def test_failed_and_cancelled_are_finished_but_not_succeeded() -> None:
    for state in (Status.FAILED, Status.CANCELLED):
        row = replace(COMPLETED, status=state, outcome_reason="DeadlineExceeded")
        conditions = _conditions(hybridjob_status(row, hybridjob(), job=None, pod=None, now=NOW))
        assert (conditions["Finished"], conditions["Succeeded"]) == ("True", "False")


def test_waiting_tells_why() -> None:
    waiting = pod(state={"waiting": {"reason": "ErrImagePull", "message": "not found"}})
    status = hybridjob_status(BOUND, hybridjob(), job=job(), pod=waiting, now=NOW)
    assert (status["state"], status["reason"], status["message"]) == (
        "queued",
        "ErrImagePull",
        "not found",
    )


def test_a_second_look_changes_nothing() -> None:
    first = hybridjob_status(COMPLETED, hybridjob(), job=job(), pod=pod(), now=NOW)
    again = hybridjob_status(
        COMPLETED, {**hybridjob(), "status": first}, job=job(), pod=pod(), now=LATER
    )
    assert again == first


def test_a_changed_condition_has_its_own_time() -> None:
    first = hybridjob_status(BOUND, hybridjob(), job=job(), pod=pod(), now=NOW)
    then = hybridjob_status(
        COMPLETED, {**hybridjob(), "status": first}, job=job(), pod=pod(), now=LATER
    )
    times = {each["type"]: each["lastTransitionTime"] for each in then["conditions"]}
    assert times["Accepted"] == "2026-01-01T00:01:00Z"
    assert times["Finished"] == "2026-01-02T00:00:00Z"


def test_what_is_not_accepted_says_so() -> None:
    status = not_accepted_status(hybridjob(), reason="UnknownType", message="none", now=NOW)
    assert _conditions(status) == {"Accepted": "False"}


def test_a_job_that_waits_for_its_next_attempt_tells_how_the_last_one_ended() -> None:
    row = replace(BACKOFF, outcome_reason="Error", error="boom", pod_name="its-pod")
    status = hybridjob_status(row, hybridjob(), job=job(), pod=pod(), now=NOW)
    assert (status["reason"], status["message"]) == ("Error", "boom")
    assert (status["finishedAt"], status["podName"]) == (None, "its-pod")
    conditions = _conditions(status)
    assert (conditions["Finished"], conditions["Succeeded"]) == ("False", "Unknown")
    assert conditions["OutcomeRecorded"] == "False"
    assert [each["message"] for each in status["conditions"]][2:] == ["", "", ""]


def test_a_job_that_runs_has_no_reason() -> None:
    status = hybridjob_status(STARTED, hybridjob(), job=job(), pod=pod(), now=NOW)
    assert (status["reason"], status["message"]) == (None, None)
    assert status["podName"] == pod()["metadata"]["name"]


@pytest.mark.parametrize("told", [None, ("QuotaExceeded", "exceeded quota: small")])
def test_without_a_job_others_tell_why(told: tuple[str, str] | None) -> None:
    status = hybridjob_status(OPEN, hybridjob(), job=None, pod=None, now=NOW, told=told)
    assert (status["reason"], status["message"]) == (told or (None, None))
    started = next(each for each in status["conditions"] if each["type"] == "Started")
    assert (started["status"], started["reason"]) == ("False", told[0] if told else "Queued")


def test_a_cancelled_job_is_finished_when_its_attempt_was() -> None:
    row = replace(COMPLETED, status=Status.CANCELLED, finished_at=None)
    status = hybridjob_status(row, hybridjob(), job=None, pod=None, now=LATER)
    assert status["finishedAt"] == "2026-01-01T00:01:00Z"


def test_a_message_is_cut_everywhere_to_what_the_definition_allows() -> None:
    row = replace(COMPLETED, status=Status.FAILED, error="x" * 5000)
    status = hybridjob_status(row, hybridjob(), job=None, pod=None, now=NOW)
    told = [status["message"], *(each["message"] for each in status["conditions"])]
    assert max(len(each) for each in told) == 1024
    assert status["message"].endswith("x…")


def test_each_condition_says_of_which_generation_it_speaks() -> None:
    body = hybridjob()
    body["metadata"]["generation"] = 7
    status = hybridjob_status(BOUND, body, job=job(), pod=pod(), now=NOW)
    assert {each["observedGeneration"] for each in status["conditions"]} == {7}
