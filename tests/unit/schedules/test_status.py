from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hybridjobs.model import Decision
from hybridjobs.schedules.known import Known, States
from hybridjobs.schedules.status import says_anything_new, schedule_status
from hybridjobs.schedules.ticks import Schedule
from hybridjobs.store.schedules import DecidedTick, ScheduleState
from tests.unit.schedules.objects import hybridjobschedule

NOW = datetime(2026, 1, 2, 0, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
JOB_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
TICKS = (
    DecidedTick(NOW.replace(second=0), Decision.SKIPPED, None),
    DecidedTick(NOW.replace(second=0) - MINUTE, Decision.SUBMITTED, JOB_ID),
    DecidedTick(NOW.replace(second=0) - 2 * MINUTE, Decision.MISSED, None),
)
STATES = States({"hjs-1": ScheduleState(1, TICKS)}, ["test/long"])


def _known(**parts: Any) -> Known:
    body = hybridjobschedule(**parts)
    return Known(body, Schedule.parse(body))


def _status(known: Known, states: States | None = STATES, now: datetime = NOW) -> dict[str, Any]:
    status = schedule_status(known, states, now=now)
    assert status is not None
    return status


def test_a_schedule_at_work() -> None:
    assert _status(_known()) == {
        "observedGeneration": 1,
        "lastScheduleTime": "2026-01-01T23:59:00Z",
        "nextScheduleTime": "2026-01-02T00:01:00Z",
        "active": 1,
        "history": [
            {"tickAt": "2026-01-02T00:00:00Z", "decision": "skipped"},
            {"tickAt": "2026-01-01T23:59:00Z", "decision": "submitted", "jobId": str(JOB_ID)},
            {"tickAt": "2026-01-01T23:58:00Z", "decision": "missed"},
        ],
        "conditions": [
            {
                "type": "Accepted",
                "status": "True",
                "reason": "Scheduled",
                "message": "its ticks become jobs",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-02T00:00:30Z",
            }
        ],
    }


def test_the_history_is_as_long_as_asked_for() -> None:
    assert len(_status(_known(historyLimit=2))["history"]) == 2
    assert _status(_known(historyLimit=0))["history"] == []


def test_a_fault_is_told_and_nothing_is_next() -> None:
    status = _status(_known(schedule="0 0 30 2 *"))
    assert status["nextScheduleTime"] is None
    [accepted] = status["conditions"]
    assert (accepted["status"], accepted["reason"]) == ("False", "NeverFires")
    assert "spec.schedule" in accepted["message"]
    assert status["active"] == 1


def test_a_type_that_is_not_there_is_a_fault_like_others() -> None:
    [accepted] = _status(_known(type="test/typo"))["conditions"]
    assert (accepted["status"], accepted["reason"]) == ("False", "UnknownType")
    assert accepted["message"].startswith("spec.type: there is no HybridJobType for 'test/typo'")
    assert accepted["message"].endswith("known types: test/long")


def test_a_payload_that_does_not_fit_its_type_is_a_fault_like_others() -> None:
    refused = replace(STATES, refused={"hjs-1": "/payload/n: not an integer"})
    status = _status(_known(), refused)
    [accepted] = status["conditions"]
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidPayload")
    assert accepted["message"] == "spec.payload: /payload/n: not an integer"
    assert status["nextScheduleTime"] is None


def test_a_suspended_schedule_has_no_next_tick() -> None:
    status = _status(_known(suspend=True))
    assert status["nextScheduleTime"] is None
    assert status["conditions"][0]["status"] == "True"


def test_without_the_database_only_faults_are_told() -> None:
    assert schedule_status(_known(), None, now=NOW) is None
    assert schedule_status(_known(), States({}, ["test/long"]), now=NOW) is None
    status = _status(_known(timeZone="Mars/Olympus"), None)
    assert status["conditions"][0]["reason"] == "UnknownTimeZone"
    assert "history" not in status


def test_the_next_tick_is_none_that_is_decided() -> None:
    behind = NOW - timedelta(minutes=5)  # this machine's clock, not the database's
    assert _status(_known(), now=behind)["nextScheduleTime"] == "2026-01-02T00:01:00Z"


def test_a_job_that_left_the_history_is_still_the_last() -> None:
    skipped = replace(STATES, by_uid={"hjs-1": ScheduleState(0, TICKS[:1])})
    assert "lastScheduleTime" not in _status(_known(), skipped)


def test_a_second_look_says_nothing_new() -> None:
    for known in (_known(), _known(suspend=True), _known(schedule="0 0 30 2 *")):
        status = _status(known)
        assert says_anything_new(known, status)
        stored = {name: value for name, value in status.items() if value is not None}
        shown = Known({**known.body, "status": stored}, known.parsed)
        again = _status(shown, now=NOW + timedelta(seconds=20))
        assert not says_anything_new(shown, again)
        assert says_anything_new(shown, {**again, "active": 9})
