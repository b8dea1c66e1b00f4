from dataclasses import replace
from datetime import UTC, datetime

from hybridjobs.controller.status import hybridjob_status, not_accepted_status
from hybridjobs.model import Status
from tests.unit.controller.objects import hybridjob, job, pod
from tests.unit.controller.test_decide import BOUND, COMPLETED, NOW

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
