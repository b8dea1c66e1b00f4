"""What to do for one HybridJob: a pure function of the row, the cluster's objects and the time.

The row is the truth. Level-triggered: nothing here depends on which event led to the call, and
calling it again with the same view is harmless, since every action is guarded where it lands.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

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
from hybridjobs.controller.observe import (
    Object,
    after_cancel,
    classify,
    condition,
    container_started_at,
    is_emptied,
    is_finished,
    is_suspended,
    taken_away,
    time,
    why_not_started,
)
from hybridjobs.kube import names
from hybridjobs.kube.identity import is_dispatched, is_over
from hybridjobs.model import AttemptEnd, JobTypeSpec, Outcome, Retry, Status
from hybridjobs.store.attempts import JobState

NODE_LOST_SLACK = timedelta(seconds=60)
SETTLE = timedelta(seconds=2)
LONG_BACKOFF = timedelta(seconds=60)
LONGEST_LOOK_AWAY = timedelta(seconds=60)
# No job has so many: a number beyond is nobody's count, and could not be counted on from.
_MOST_UNKNOWN_ATTEMPTS = 1000
_REPLACED = "its Job was suspended and resumed: a second pod may not go on for the first"


@dataclass(frozen=True, slots=True)
class View:
    """All that a decision rests on.

    `job` and `pod` belong to the row's last attempt. A missing `job` is known to be missing (it was
    asked for by name) when the row says that there was one. `previous` is the Job of the attempt
    before; `told` why the Job has no pod, in words of whoever keeps it so (`controller.holds`).
    """

    row: JobState
    hybridjob: Object
    spec: JobTypeSpec | None
    job: Object | None
    pod: Object | None
    previous: Object | None = None
    told: tuple[str, str] | None = None


def decide(view: View, now: datetime) -> list[Action]:
    """The actions to take, in order. Each that closes an attempt is the last of its list."""
    row, hybridjob = view.row, view.hybridjob
    uid, wanted = hybridjob["metadata"]["uid"], hybridjob["spec"].get("attempt", 0)
    # The end of what it has open is recorded before, if there is one to be seen.
    ended = row.open_attempt is not None and is_finished(view.job)
    if row.attempt < wanted <= row.attempt + _MOST_UNKNOWN_ATTEMPTS and not ended:
        return [CountUp()]
    actions: list[Action] = []
    if hybridjob["spec"].get("cancel") and not (row.cancel_requested or row.status.is_terminal):
        if is_over(hybridjob) and _is_earlier(wanted, row):
            return []  # the dispatcher replaces it for the run to come
        actions.append(RequestCancel())
    if row.open_attempt is None:
        return actions + _closed(view, now)
    if wanted < row.open_attempt:
        return actions  # the dispatcher is about to apply the new attempt
    if row.hybridjob_uid not in (None, uid):
        return [*actions, _lost("Superseded", "another HybridJob took this attempt's place")]
    old = view.previous
    ending = is_finished(old) or "deletionTimestamp" in (old or {}).get("metadata", {})
    if old is not None and not ending and _is_ours(old, row, uid):
        # Closed as never started or as lost, but a crash came before its removal.
        actions.append(RemoveJob(old))
    return actions + _open(view, now)


def _is_earlier(attempt: int, row: JobState) -> bool:
    """Whether it is none of the run that is on, or to come.

    Nor is one of a later run, which the database knew before it was restored.
    """
    return attempt <= row.attempt if row.open_attempt is None else attempt < row.open_attempt


def _open(view: View, now: datetime) -> list[Action]:
    row, job, pod = view.row, view.job, view.pod
    uid = view.hybridjob["metadata"]["uid"]
    cancel = row.cancel_requested or bool(view.hybridjob["spec"].get("cancel"))
    if job is None:
        if cancel:
            return [RecordEnd(AttemptEnd(Outcome.CANCELLED, "Cancelled"))]
        if row.job_uid is not None or row.attempt_started_at is not None:
            return [_lost("JobDeleted", "its Kubernetes Job was deleted")]
        return _create(view, now)
    if _owner(job) != uid and job["metadata"].get("deletionTimestamp"):
        return [Wait(timedelta(seconds=1))]
    if not _is_ours(job, row, uid):
        conflict = f"a Job named {job['metadata']['name']} belongs to something else"
        return [RecordEnd(AttemptEnd(Outcome.FAILED, "NameConflict", conflict))]
    if row.job_uid not in (None, job["metadata"]["uid"]):
        return [_lost("JobReplaced", "its Kubernetes Job was deleted and made again")]
    if _owner(job) != uid:
        return [OwnJob()]
    actions: list[Action] = []
    if row.job_uid is None:
        actions.append(BindJob(job["metadata"]["uid"]))
    if is_finished(job):
        retry = view.spec.retry if view.spec else Retry()
        end = classify(
            job,
            pod,
            begun=is_begun(row, pod),
            reported=row.reported,
            permanent_exit_codes=retry.permanent_exit_codes,
            told=view.told,
        )
        if _is_second_pod(view) and end.outcome is not Outcome.SUCCEEDED:
            end = replace(end, outcome=Outcome.DISRUPTED, reason="PodReplaced", message=_REPLACED)
        return [*actions, RecordEnd(after_cancel(end, pod) if cancel else end)]
    if is_suspended(job):
        return actions + _suspended(view, now, cancel=cancel)
    if not is_begun(row, pod):
        return actions + _not_started(view, now, cancel=cancel)
    started_at = container_started_at(pod)
    if row.attempt_started_at is None and started_at is not None:
        # What follows rests on the row as it is then.
        return [*actions, RecordStart(started_at)]
    if _is_second_pod(view) and started_at is None:
        end = AttemptEnd(Outcome.DISRUPTED, "PodReplaced", _REPLACED)
        return [*actions, RecordEnd(end, remove_job=True)]
    unwanted = cancel or _is_second_pod(view)
    if unwanted and pod is not None and pod["spec"].get("activeDeadlineSeconds") != 1:
        actions.append(EndPod())
    return actions + _running(view, now)


def _create(view: View, now: datetime) -> list[Action]:
    if view.spec is not None:
        return [CreateJob()]
    overdue = _since(view.row.claimed_at, now) - timedelta(seconds=300)
    if overdue >= timedelta(0):
        missing = f"there is no HybridJobType for {view.row.type}"
        return [RecordEnd(AttemptEnd(Outcome.NEVER_STARTED, "UnknownType", missing))]
    return [Wait(-overdue)]


def _not_started(view: View, now: datetime, *, cancel: bool) -> list[Action]:
    job, pod = view.job, view.pod
    if cancel:
        return [RecordEnd(AttemptEnd(Outcome.CANCELLED, "Cancelled"), remove_job=True)]
    limit = timedelta(seconds=view.spec.start_deadline_seconds if view.spec else 300)
    begun = time(((job or {}).get("status") or {}).get("startTime"))
    if begun is None:
        # Just made, perhaps long after the claim, or the Job controller is away: no clock runs.
        return [Wait(LONGEST_LOOK_AWAY)]
    waited = _since(begun, now)
    # A pod that is ending needs no verdict of ours: its Job is about to have one.
    if waited >= limit and condition(job, "FailureTarget") is None:
        reason, message = why_not_started(job, pod, view.told)
        text = f"no container started within {int(limit.total_seconds())} s: {message}"
        return [RecordEnd(AttemptEnd(Outcome.NEVER_STARTED, reason, text), remove_job=True)]
    if lost := _node_lost(view, now):
        return lost
    shown: list[Action] = [PatchStatus()] if waited >= 5 * SETTLE else []
    next_look = 5 * SETTLE if waited < 5 * SETTLE else max(limit, waited + SETTLE)
    return [*shown, Wait(next_look - waited)]


def _suspended(view: View, now: datetime, *, cancel: bool) -> list[Action]:
    """Held back: no clock runs. But one Job has one pod, so that what began ends here."""
    row, job, pod = view.row, view.job, view.pod
    assert job is not None
    if not is_begun(row, pod):
        if cancel:
            return [RecordEnd(AttemptEnd(Outcome.CANCELLED, "Cancelled"), remove_job=True)]
        # Nobody tells when its place in the queue changes.
        waited = _since(row.claimed_at, now)
        return [PatchStatus(), Wait(min(max(waited, SETTLE), LONGEST_LOOK_AWAY))]
    if is_emptied(job):
        return [RecordEnd(taken_away(pod, view.told), remove_job=True)]
    return _running(view, now)


def is_begun(row: JobState, pod: Object | None) -> bool:
    """Whether a container of the last attempt has started, as far as row and pod know."""
    return row.attempt_started_at is not None or container_started_at(pod) is not None


def _is_second_pod(view: View) -> bool:
    """Whether the Job was suspended and resumed unseen, so that a second pod came of it."""
    row, pod = view.row, view.pod
    if row.attempt_started_at is None or row.pod_name is None or pod is None:
        return False
    return bool(pod["metadata"]["name"] != row.pod_name)


def _running(view: View, now: datetime) -> list[Action]:
    if lost := _node_lost(view, now):
        return lost
    started_at = container_started_at(view.pod) or view.row.attempt_started_at
    settling = SETTLE - _since(started_at, now)
    if settling > timedelta(0):
        return [Wait(settling)]
    return [PatchStatus(), Wait(max(-_silent_for(view, now), SETTLE))]


def _node_lost(view: View, now: datetime) -> list[Action]:
    """The end of an attempt whose pod nobody ends, as soon as its type lets the next one begin."""
    overlap = view.spec is None or view.spec.retry.overlap == "Allow"
    if not overlap or _silent_for(view, now) < timedelta(0):
        return []
    gone = "its pod did not end after every deadline had passed; the node must be lost"
    return [RecordEnd(AttemptEnd(Outcome.NODE_LOST, "NodeLost", gone), remove_job=True)]


def _silent_for(view: View, now: datetime) -> timedelta:
    """How long the Job should have been over, whatever its pod does; negative: it may yet run."""
    row, job = view.row, view.job or {}
    # A Job that is suspended, as a queue does it, has no start time.
    began = time((job.get("status") or {}).get("startTime")) or (
        row.attempt_started_at or container_started_at(view.pod) or row.claimed_at
    )
    backstop = timedelta(seconds=job["spec"].get("activeDeadlineSeconds", 0))
    grace = timedelta(seconds=view.spec.grace_period_seconds if view.spec else 30)
    return _since(began, now) - backstop - grace - NODE_LOST_SLACK


def _closed(view: View, now: datetime) -> list[Action]:
    """No attempt is open: the job is over, or waits for its next."""
    row, job = view.row, view.job
    actions: list[Action] = []
    if job is not None and not _is_ours(job, row, view.hybridjob["metadata"]["uid"]):
        job = None
    if job is not None and row.attempt and not row.has_log and is_finished(job):
        begun = is_begun(row, view.pod)
        actions.append(AddEvidence(classify(job, view.pod, begun=begun)))
    elif job is not None and not is_finished(job) and is_suspended(job):
        actions.append(RemoveJob(job))  # resumed, it would begin once more
    elif job is not None and not is_finished(job) and row.status is not Status.COMPLETED:
        # Closed over its head: by hand, as its worker failed, or just before a crash of ours.
        if container_started_at(view.pod) is not None:
            if view.pod is not None and view.pod["spec"].get("activeDeadlineSeconds") != 1:
                actions.append(EndPod())
        elif row.attempt_started_at is None:
            actions.append(RemoveJob(job))
    if row.status is Status.QUEUED:
        releasable = row.attempt and is_dispatched(view.hybridjob)
        if releasable and row.run_at - now > LONG_BACKOFF:
            return [*actions, ReleaseHybridJob()]
    return [*actions, PatchStatus()]


def is_the_rows(row: JobState, hybridjob: Object) -> bool:
    """Whether it is the HybridJob that stands for the row, rather than a copy of that."""
    metadata = hybridjob["metadata"]
    # One that says a later attempt was made in the place of the row's, after a backup.
    later = hybridjob["spec"].get("attempt", 0) > row.attempt
    if row.resource_uid is not None and not later:
        return bool(metadata["uid"] == row.resource_uid)
    return bears_its_name(row, hybridjob)


def bears_its_name(row: JobState, hybridjob: Object) -> bool:
    """Whether it has the name that the row has for its HybridJob, or that we give one."""
    own = names.hybridjob_name(row.type, row.job_id)
    return hybridjob["metadata"]["name"] in (row.resource_name, own)


def is_cancelled_by_deletion(row: JobState, hybridjob: Object) -> bool:
    """Whether the deletion of this HybridJob, not by us, asks to cancel its job.

    We delete one only when its job is over, or after the row has forgotten its uid.
    """
    uid, attempt = hybridjob["metadata"]["uid"], hybridjob["spec"].get("attempt")
    if row.status.is_terminal:
        return False
    if row.resource_uid == uid:
        return True
    if row.open_attempt is None or row.open_attempt != attempt:
        return False
    # Bound by the operator, or not yet by anybody.
    return is_the_rows(row, hybridjob) if row.hybridjob_uid is None else row.hybridjob_uid == uid


def _lost(reason: str, message: str) -> RecordEnd:
    return RecordEnd(AttemptEnd(Outcome.LOST, reason, message))


def _owner(job: Object) -> str | None:
    for reference in job["metadata"].get("ownerReferences") or []:
        if reference.get("controller"):
            uid: str = reference["uid"]
            return uid
    return None


def _is_ours(job: Object, row: JobState, uid: str) -> bool:
    """Whether it is the attempt's, though perhaps of a HybridJob that is no more."""
    labels = job["metadata"].get("labels") or {}
    made_for_it = labels.get(names.JOB_ID) == str(row.job_id)
    return made_for_it or _owner(job) == uid or row.job_uid == job["metadata"]["uid"]


def _since(moment: datetime | None, now: datetime) -> timedelta:
    return timedelta(0) if moment is None else now - moment
