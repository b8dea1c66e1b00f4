from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hybridjobs.controller.actions import (
    Action,
    AddEvidence,
    BindJob,
    CountUp,
    CreateJob,
    EndPod,
    OwnJob,
    PatchStatus,
    RecordEnd,
    RecordStart,
    ReleaseHybridJob,
    RemoveJob,
    RequestCancel,
    Wait,
)
from hybridjobs.controller.decide import (
    View,
    decide,
    is_cancelled_by_deletion,
    is_the_rows,
)
from hybridjobs.kube import names
from hybridjobs.kube.identity import job_id
from hybridjobs.model import JobTypeSpec, Outcome, Status
from hybridjobs.store.attempts import JobState
from tests.unit.controller.objects import (
    COMPLETE,
    FAILED,
    JOB_ID,
    RUNNING,
    condition,
    hybridjob,
    job,
    pod,
    terminated,
)

NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
CLAIMED = NOW - timedelta(minutes=1)
SPEC = JobTypeSpec(type="test/long")

OPEN = JobState(
    job_id=JOB_ID,
    type="test/long",
    status=Status.QUEUED,
    payload="{}",
    cancel_requested=False,
    error=None,
    run_at=CLAIMED,
    resource_name="test-long",
    resource_uid="hj-1",
    traceparent=None,
    started_at=None,
    outcome_reason=None,
    duration_ms=None,
    finished_at=None,
    attempt=1,
    open_attempt=1,
    deadline_seconds=900,
    claimed_at=CLAIMED,
)
BOUND = replace(OPEN, hybridjob_uid="hj-1", job_uid="job-1")
STARTED = replace(BOUND, status=Status.PROCESSING, attempt_started_at=CLAIMED, started_at=CLAIMED)
CLOSED = replace(STARTED, open_attempt=None, attempt_ended_at=NOW)
COMPLETED = replace(CLOSED, status=Status.COMPLETED, finished_at=NOW)
BACKOFF = replace(CLOSED, status=Status.QUEUED, run_at=NOW + timedelta(seconds=10))


def _decide(row: JobState, *, now: datetime = NOW, **parts: Any) -> list[Action]:
    view = View(
        row,
        parts.get("the_hybridjob", hybridjob()),
        parts.get("spec", SPEC),
        parts.get("the_job"),
        parts.get("the_pod"),
    )
    return decide(view, now)


def _only_end(actions: list[Action]) -> tuple[Outcome, str, bool]:
    [ended] = [each for each in actions if isinstance(each, RecordEnd)]
    assert actions[-1] is ended
    return ended.end.outcome, ended.end.reason, ended.remove_job


def test_a_claimed_attempt_gets_its_job() -> None:
    assert _decide(OPEN) == [CreateJob()]


def test_a_job_made_before_a_crash_is_bound() -> None:
    assert _decide(replace(OPEN, hybridjob_uid="hj-1"), the_job=job())[0] == BindJob("job-1")


def test_a_started_container_makes_it_processing() -> None:
    actions = _decide(BOUND, the_job=job(), the_pod=pod(state=RUNNING))
    assert [type(each) for each in actions] == [RecordStart]
    again = _decide(STARTED, the_job=job(), the_pod=pod(state=RUNNING))
    assert [type(each) for each in again] == [PatchStatus, Wait]


def test_no_clock_runs_before_the_job_controller_has_taken_up_the_job() -> None:
    made = job()
    made["status"] = {}
    # Made by an operator that was away for an hour after the claim.
    actions = _decide(BOUND, the_job=made, now=CLAIMED + timedelta(hours=1))
    assert [type(each) for each in actions] == [Wait]


def test_a_job_that_runs_is_left_alone_while_its_pod_is_not_known_yet() -> None:
    # By an operator that has just begun, and has not listed the pods.
    now = CLAIMED + timedelta(minutes=10)
    actions = _decide(STARTED, the_job=job(), now=now)
    assert [type(each) for each in actions] == [PatchStatus, Wait]


def test_a_second_pod_that_has_not_begun_does_not() -> None:
    row = replace(STARTED, pod_name="the-first-one")
    actions = _decide(row, the_job=job(), the_pod=pod())
    assert _only_end(actions) == (Outcome.DISRUPTED, "PodReplaced", True)


def test_the_status_of_a_job_that_may_end_at_once_waits() -> None:
    now = datetime(2026, 1, 1, 0, 0, 3, tzinfo=UTC)
    actions = _decide(STARTED, the_job=job(), the_pod=pod(state=RUNNING), now=now)
    assert actions == [Wait(timedelta(seconds=1))]


def test_a_finished_job_is_recorded() -> None:
    actions = _decide(STARTED, the_job=job(COMPLETE), the_pod=pod(state=terminated(0)))
    assert _only_end(actions) == (Outcome.SUCCEEDED, "Completed", False)


@pytest.mark.parametrize(
    ("row", "the_job", "expected"),
    [
        (BOUND, None, (Outcome.LOST, "JobDeleted", False)),
        (BOUND, job(uid="job-2"), (Outcome.LOST, "JobReplaced", False)),
        (replace(BOUND, hybridjob_uid="hj-0"), job(), (Outcome.LOST, "Superseded", False)),
        (OPEN, job(owner="someone"), (Outcome.FAILED, "NameConflict", False)),
    ],
)
def test_what_was_taken_away_is_lost(
    row: JobState, the_job: dict[str, Any] | None, expected: tuple[Outcome, str, bool]
) -> None:
    assert _only_end(_decide(row, the_job=the_job)) == expected


def test_the_attempts_job_whose_hybridjob_is_gone_becomes_the_new_ones() -> None:
    assert _decide(BOUND, the_job=job(owner="gone")) == [OwnJob()]
    assert _only_end(_decide(BOUND, the_job=job(owner="gone", uid="job-2")))[1] == "NameConflict"
    made_for_it = job(owner="gone")
    made_for_it["metadata"]["labels"] = {names.JOB_ID: str(JOB_ID)}
    assert _decide(OPEN, the_job=made_for_it) == [OwnJob()]


def test_a_foreign_job_that_is_going_is_waited_for() -> None:
    going = job(owner="someone")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert _decide(OPEN, the_job=going) == [Wait(timedelta(seconds=1))]


def test_a_job_whose_owner_let_go_of_it_before_it_was_bound_is_still_its_attempts() -> None:
    orphan = job()
    orphan["metadata"] |= {"ownerReferences": [], "labels": {names.JOB_ID: str(JOB_ID)}}
    assert _decide(OPEN, the_job=orphan) == [OwnJob()]


def test_a_foreign_job_is_left_alone_when_its_name_has_ended_the_attempt() -> None:
    foreign = job(owner="someone")
    refused = replace(OPEN, open_attempt=None, status=Status.FAILED)
    assert _decide(refused, the_job=foreign) == [PatchStatus()]
    second = replace(OPEN, attempt=2, open_attempt=2)
    view = View(second, hybridjob(attempt=2), SPEC, None, None, previous=foreign)
    assert decide(view, NOW) == [CreateJob()]


def test_a_container_that_never_starts_ends_the_attempt_with_its_reason() -> None:
    waiting = pod(state={"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})
    early = _decide(BOUND, the_job=job(), the_pod=waiting)
    assert early == [PatchStatus(), Wait(timedelta(seconds=240))]
    late = _decide(BOUND, the_job=job(), the_pod=waiting, now=NOW + timedelta(seconds=240))
    assert _only_end(late) == (Outcome.NEVER_STARTED, "ImagePullBackOff", True)


def test_a_backstop_that_passed_without_a_pod_is_no_deadline_of_the_handlers() -> None:
    over = job(condition("Failed", "DeadlineExceeded", "Job was active longer than allowed"))
    refused = View(BOUND, hybridjob(), SPEC, over, None, told=("QuotaExceeded", "no room"))
    assert _only_end(decide(refused, NOW)) == (Outcome.NEVER_STARTED, "QuotaExceeded", False)
    assert _only_end(_decide(BOUND, the_job=over))[:2] == (Outcome.NEVER_STARTED, "NoPod")
    assert _only_end(_decide(STARTED, the_job=over))[0] is Outcome.DEADLINE


def _suspended(*, emptied: bool = True, **spec: Any) -> dict[str, Any]:
    """As Kueue leaves it: without a start time."""
    the_job = job(condition("Suspended", "JobSuspended"), suspend=True, **spec)
    the_job["status"] = {
        "conditions": the_job["status"]["conditions"],
        "terminating": 0 if emptied else 1,
    }
    return the_job


def test_no_clock_runs_while_a_queue_holds_the_job() -> None:
    actions = _decide(BOUND, the_job=_suspended(), now=NOW + timedelta(days=1))
    assert actions == [PatchStatus(), Wait(timedelta(seconds=60))]
    resumed = _suspended()
    resumed["spec"]["suspend"] = False  # and the Job controller has not seen it yet
    assert _decide(BOUND, the_job=resumed, now=NOW + timedelta(days=1)) == actions


def test_a_job_that_waits_in_a_queue_is_looked_at_ever_less_often() -> None:
    waits = []
    for seconds in (0, 1, 10, 40, 1000):
        now = CLAIMED + timedelta(seconds=seconds)
        waits.append(_decide(BOUND, the_job=_suspended(), now=now)[-1])
    assert waits == [Wait(timedelta(seconds=seconds)) for seconds in (2, 2, 10, 40, 60)]


def test_what_a_queue_takes_away_is_a_disruption_once_its_pod_has_ended() -> None:
    ending = _decide(STARTED, the_job=_suspended(emptied=False), the_pod=pod(state=RUNNING))
    assert not any(isinstance(each, RecordEnd) for each in ending)
    ended: Any = {"the_job": _suspended(), "the_pod": pod(state=terminated(143))}
    for row in (STARTED, BOUND):  # its start recorded, or not yet
        assert _only_end(_decide(row, **ended)) == (Outcome.DISRUPTED, "Suspended", True)
    told = View(
        STARTED,
        hybridjob(),
        SPEC,
        ended["the_job"],
        ended["the_pod"],
        told=("Preempted", "by another"),
    )
    assert _only_end(decide(told, NOW)) == (Outcome.DISRUPTED, "Preempted", True)
    done = _decide(STARTED, the_job=_suspended(), the_pod=pod(state=terminated(0)))
    assert _only_end(done) == (Outcome.SUCCEEDED, "Completed", True)


def test_a_node_that_is_lost_with_a_pod_taken_away_ends_the_wait() -> None:
    stuck: Any = {"the_job": _suspended(emptied=False), "the_pod": pod(state=RUNNING)}
    slack = timedelta(seconds=1230 + 30 + 60)
    assert _only_end(_decide(STARTED, **stuck, now=CLAIMED + slack))[0] is Outcome.NODE_LOST


def test_a_suspension_comes_too_late_for_a_job_whose_end_is_decided() -> None:
    out_of_time = condition("FailureTarget", "DeadlineExceeded")
    stuck: Any = {"the_job": job(out_of_time, suspend=True), "the_pod": pod()}
    slack = timedelta(seconds=1230 + 30 + 60)
    assert _only_end(_decide(BOUND, **stuck, now=CLAIMED + slack))[0] is Outcome.NODE_LOST


def test_what_has_started_ends_at_its_deadline_though_its_pod_tells_of_no_start() -> None:
    failed = condition("Failed", "DeadlineExceeded", "Job was active longer than its deadline")
    outcome, reason = _only_end(_decide(STARTED, the_job=job(failed), the_pod=pod()))[:2]
    assert (outcome, reason) == (Outcome.DEADLINE, "DeadlineExceeded")


def test_what_has_started_is_not_made_again_though_nobody_noted_its_job() -> None:
    row = replace(STARTED, job_uid=None)
    assert _only_end(_decide(row))[:2] == (Outcome.LOST, "JobDeleted")


def test_a_second_pod_of_a_job_does_not_go_on_for_the_first() -> None:
    first = replace(STARTED, pod_name="another")
    running = _decide(first, the_job=job(), the_pod=pod(state=RUNNING))
    assert running[0] == EndPod()
    ended = _decide(first, the_job=job(FAILED), the_pod=pod(state=terminated(143)))
    assert _only_end(ended) == (Outcome.DISRUPTED, "PodReplaced", False)
    done = _decide(first, the_job=job(COMPLETE), the_pod=pod(state=terminated(0)))
    assert _only_end(done)[0] is Outcome.SUCCEEDED


@pytest.mark.parametrize("row", [COMPLETED, BACKOFF, replace(CLOSED, status=Status.FAILED)])
def test_a_queue_cannot_begin_again_what_is_closed(row: JobState) -> None:
    assert _decide(row, the_job=_suspended())[0] == RemoveJob(_suspended())


def test_a_node_gone_silent_is_fenced_after_every_deadline() -> None:
    running: Any = {"the_job": job(), "the_pod": pod(state=RUNNING)}
    slack = timedelta(seconds=1230 + 30 + 60)
    began = datetime(2026, 1, 1, tzinfo=UTC)
    assert not any(
        isinstance(each, RecordEnd)
        for each in _decide(STARTED, **running, now=began + slack - timedelta(seconds=1))
    )
    assert _only_end(_decide(STARTED, **running, now=began + slack))[0] is Outcome.NODE_LOST
    forbid = JobTypeSpec.model_validate({"type": "t", "retry": {"overlap": "Forbid"}})
    patient = _decide(STARTED, **running, spec=forbid, now=began + 2 * slack)
    assert not any(isinstance(each, RecordEnd) for each in patient)


def test_a_node_gone_silent_before_it_told_of_a_start_is_fenced_too() -> None:
    # Past the start deadline while no operator was there; by now the Job has failed but for its
    # pod, of whose end nobody tells.
    stuck: Any = {"the_job": job(condition("FailureTarget")), "the_pod": pod()}
    began = datetime(2026, 1, 1, tzinfo=UTC)
    slack = timedelta(seconds=1230 + 30 + 60)
    before = _decide(BOUND, **stuck, now=began + slack - timedelta(seconds=1))
    assert [type(each) for each in before] == [PatchStatus, Wait]
    assert _only_end(_decide(BOUND, **stuck, now=began + slack)) == (
        Outcome.NODE_LOST,
        "NodeLost",
        True,
    )


def test_cancel_by_spec_is_taken_over() -> None:
    cancelled = hybridjob(cancel=True)
    assert _decide(OPEN, the_hybridjob=cancelled)[0] == RequestCancel()
    running = _decide(STARTED, the_hybridjob=cancelled, the_job=job(), the_pod=pod(state=RUNNING))
    assert running[:2] == [RequestCancel(), EndPod()]


def test_cancel_ends_what_has_not_started() -> None:
    asked = replace(BOUND, cancel_requested=True)
    for the_job in (job(), _suspended()):
        assert _only_end(_decide(asked, the_job=the_job)) == (Outcome.CANCELLED, "Cancelled", True)
    unborn = replace(OPEN, cancel_requested=True)
    assert _only_end(_decide(unborn)) == (Outcome.CANCELLED, "Cancelled", False)


def test_a_pod_is_asked_to_end_once() -> None:
    asked = replace(STARTED, cancel_requested=True)
    ending = pod(state=RUNNING)
    ending["spec"]["activeDeadlineSeconds"] = 1
    assert EndPod() not in _decide(asked, the_job=job(), the_pod=ending)


def test_an_attempt_that_its_worker_closed_gets_its_evidence() -> None:
    ended: Any = {"the_job": job(COMPLETE), "the_pod": pod(state=terminated(0))}
    assert [type(each) for each in _decide(COMPLETED, **ended)] == [AddEvidence, PatchStatus]
    assert _decide(replace(COMPLETED, has_log=True), **ended) == [PatchStatus()]


def test_a_completed_job_may_finish_its_pod_in_peace_and_a_failed_one_may_not() -> None:
    running: Any = {"the_job": job(), "the_pod": pod(state=RUNNING)}
    assert _decide(COMPLETED, **running) == [PatchStatus()]
    failed = replace(COMPLETED, status=Status.FAILED)
    assert _decide(failed, **running) == [EndPod(), PatchStatus()]


def test_the_job_of_an_earlier_attempt_is_removed_before_the_next_begins() -> None:
    second = replace(OPEN, attempt=2, open_attempt=2)
    again: Any = hybridjob(attempt=2)
    view = View(second, again, SPEC, None, None, previous=job())
    assert decide(view, NOW) == [RemoveJob(job()), CreateJob()]
    over = replace(view, previous=job(FAILED))
    assert decide(over, NOW) == [CreateJob()]


def test_the_job_of_an_attempt_closed_before_its_start_is_removed() -> None:
    failed = replace(BOUND, open_attempt=None, status=Status.FAILED)
    assert _decide(failed, the_job=job()) == [RemoveJob(job()), PatchStatus()]


def test_a_cancel_of_an_earlier_run_is_left_to_the_dispatcher() -> None:
    cancelled = {**hybridjob(cancel=True), "status": {"state": "cancelled"}}
    anew = replace(CLOSED, status=Status.QUEUED)
    assert _decide(anew, the_hybridjob=cancelled) == []


@pytest.mark.parametrize("row", [OPEN, BOUND])
def test_a_cancel_of_a_run_that_a_backup_does_not_know_counts(row: JobState) -> None:
    cancelled = {**hybridjob(cancel=True, attempt=2), "status": {"state": "cancelled"}}
    assert _decide(row, the_hybridjob=cancelled, the_job=job(FAILED))[0] == RequestCancel()
    counted_up = replace(row, attempt=2, open_attempt=2)
    assert _decide(counted_up, the_hybridjob=cancelled)[0] == RequestCancel()


def test_a_cancel_on_which_the_next_attempt_was_said_counts_for_that() -> None:
    # Run anew before the status said cancelled, so that the dispatcher did not replace it.
    cancelled = {**hybridjob(cancel=True, attempt=2), "status": {"state": "cancelled"}}
    anew = replace(OPEN, attempt=2, open_attempt=2)
    actions = _decide(anew, the_hybridjob=cancelled)
    assert actions[0] == RequestCancel()
    assert _only_end(actions)[0] is Outcome.CANCELLED


def test_only_a_dispatched_hybridjob_is_released_for_a_long_backoff() -> None:
    long = replace(BACKOFF, run_at=NOW + timedelta(seconds=61))
    ours = hybridjob()
    theirs = hybridjob()
    del theirs["spec"]["jobId"]
    theirs["spec"]["jobId"] = str(job_id(theirs))  # as the dispatcher writes it down
    finished: Any = {"the_job": job(FAILED)}
    has_log = replace(long, has_log=True)
    assert _decide(has_log, the_hybridjob=ours, **finished) == [ReleaseHybridJob()]
    assert _decide(has_log, the_hybridjob=theirs, **finished) == [PatchStatus()]
    short = replace(BACKOFF, has_log=True)
    assert _decide(short, the_hybridjob=ours, **finished) == [PatchStatus()]


def test_a_type_that_is_missing_is_waited_for_and_then_named() -> None:
    assert _decide(OPEN, spec=None) == [Wait(timedelta(seconds=240))]
    late = _decide(OPEN, spec=None, now=NOW + timedelta(seconds=240))
    assert _only_end(late) == (Outcome.NEVER_STARTED, "UnknownType", False)


@pytest.mark.parametrize(
    ("row", "cancelled"),
    [
        (OPEN, True),
        (BOUND, True),
        (replace(OPEN, resource_uid=None), True),
        (replace(BOUND, resource_uid="hj-2", hybridjob_uid="hj-2"), False),
        (replace(OPEN, attempt=2, open_attempt=2), True),  # just claimed, not yet said
        (replace(OPEN, attempt=2, open_attempt=2, resource_uid=None), False),
        (BACKOFF, True),
        (replace(BACKOFF, resource_uid=None), False),  # released by us
        (COMPLETED, False),
    ],
)
def test_which_deletion_means_cancel(row: JobState, cancelled: bool) -> None:
    assert is_cancelled_by_deletion(row, hybridjob()) is cancelled


def test_a_copy_of_a_hybridjob_stands_for_nothing() -> None:
    ours, unknown = hybridjob(), replace(OPEN, resource_uid=None)
    copy = {**ours, "metadata": {**ours["metadata"], "name": "copy", "uid": "hj-2"}}
    for row in (OPEN, unknown):
        assert is_the_rows(row, ours)
        assert not is_the_rows(row, copy)
        assert not is_cancelled_by_deletion(row, copy)
    assert is_the_rows(replace(unknown, resource_name="copy"), copy)
    assert not is_the_rows(OPEN, {**ours, "metadata": {**ours["metadata"], "uid": "hj-2"}})


@pytest.mark.parametrize(
    "row",
    [
        OPEN,
        STARTED,
        BACKOFF,
        replace(BACKOFF, run_at=NOW + timedelta(hours=1)),
        COMPLETED,
        replace(OPEN, attempt=0, open_attempt=None),
    ],
)
def test_a_row_that_is_behind_its_hybridjob_is_brought_up_to_it(row: JobState) -> None:
    later = hybridjob(attempt=row.attempt + 2)
    assert _decide(row, the_hybridjob=later) == [CountUp()]
    anew = replace(row, resource_uid="of the one before")
    assert is_the_rows(anew, later)
    copy = {**later, "metadata": {**later["metadata"], "name": "copy"}}
    assert not is_the_rows(anew, copy)


def test_what_is_there_of_the_end_of_an_attempt_is_recorded_before_a_later_one_counts() -> None:
    actions = _decide(
        STARTED,
        the_hybridjob=hybridjob(attempt=2),
        the_job=job(FAILED),
        the_pod=pod(state=terminated(1)),
    )
    assert _only_end(actions) == (Outcome.FAILED, "Error", False)


def test_no_attempt_is_counted_up_to_from_which_none_could_be_counted() -> None:
    forged = hybridjob(attempt=2**31 - 1)
    assert _decide(OPEN, the_hybridjob=forged) == [CreateJob()]
