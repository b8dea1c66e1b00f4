"""Readings of Kubernetes objects: pure functions from Job and pod to what they mean for us."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hybridjobs import exits
from hybridjobs.exits import Account, failure, with_result
from hybridjobs.kube import names
from hybridjobs.model import AttemptEnd, Outcome

Object = dict[str, Any]

NAMESPACE_TERMINATING = "NamespaceTerminating"

_KILLED = {128 + 9, 128 + 15}  # by SIGKILL, SIGTERM

# Reasons of a waiting container that never heal by waiting alone, in Kubernetes' words.
_HOPELESS = {
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
}


# What the API server's refusals have in common, each with a word for it.
_REFUSALS = (
    ("exceeded quota:", "QuotaExceeded"),
    ("insufficient quota", "QuotaExceeded"),
    ("failed quota:", "QuotaUnmet"),  # it wants requests or limits that the type does not set
    ("is being terminated", NAMESPACE_TERMINATING),
    ("violates PodSecurity", "PodSecurityViolated"),
    ("denied the request", "AdmissionRefused"),  # a webhook
    ("denied request", "AdmissionRefused"),  # a ValidatingAdmissionPolicy
)


def condition(item: Object | None, type_: str) -> Object | None:
    """The condition of that type if it is True."""
    for each in ((item or {}).get("status") or {}).get("conditions") or []:
        if each["type"] == type_ and each["status"] == "True":
            found: Object = each
            return found
    return None


def is_finished(job: Object | None) -> bool:
    """Whether the Kubernetes Job is terminal: its pod is gone or has ended."""
    return condition(job, "Complete") is not None or condition(job, "Failed") is not None


def is_suspended(job: Object | None) -> bool:
    """Whether a queue, or a person, holds the Job back.

    Also for the moment in which it is resumed and the Job controller has not begun its clock. But
    not one whose end is decided, which it has as soon as its pod is gone.
    """
    if condition(job, "FailureTarget") is not None:
        return False
    return bool(((job or {}).get("spec") or {}).get("suspend")) or (
        condition(job, "Suspended") is not None
    )


def is_emptied(job: Object) -> bool:
    """Whether a suspended Job's pod has ended: the Job controller deletes it, with its grace."""
    status = job.get("status") or {}
    return condition(job, "Suspended") is not None and not (
        status.get("active") or status.get("terminating")
    )


def time(text: str | None) -> datetime | None:
    """A Kubernetes timestamp (RFC 3339, UTC)."""
    return None if text is None else datetime.fromisoformat(text)


def container_state(pod: Object | None) -> Object:
    """The main container's state: {"running": …}, {"terminated": …}, {"waiting": …} or {}."""
    for status in ((pod or {}).get("status") or {}).get("containerStatuses") or []:
        if status["name"] == names.CONTAINER:
            state: Object = status.get("state") or {}
            return state
    return {}


def container_started_at(pod: Object | None) -> datetime | None:
    """When the main container started; None while it has not."""
    state = container_state(pod)
    began = time((state.get("running") or state.get("terminated") or {}).get("startedAt"))
    # One that the runtime could not start is shown as terminated, begun in 1970.
    return began if began is not None and began.timestamp() > 0 else None


def is_ended(pod: Object | None) -> bool:
    """Whether the main container has ended, so that its log is whole."""
    return "terminated" in container_state(pod)


def why_not_started(
    job: Object | None, pod: Object | None, told: tuple[str, str] | None = None
) -> tuple[str, str]:
    """Reason and message, for people, of a container that does not start.

    `told` is what those say who keep the Job without a pod (`controller.holds`).
    """
    if is_suspended(job):
        return told or ("Suspended", "the Job is suspended")
    waiting = container_state(pod).get("waiting") or {}
    if waiting.get("reason") in _HOPELESS:
        return waiting["reason"], waiting.get("message") or "the container cannot be created"
    scheduled = [
        each
        for each in ((pod or {}).get("status") or {}).get("conditions") or []
        if each["type"] == "PodScheduled" and each["status"] == "False"
    ]
    if scheduled:
        return scheduled[0].get("reason", "Unschedulable"), scheduled[0].get("message", "")
    if pod is None:
        return told or ("NoPod", "no pod was created for the Job")
    return "NotStarted", waiting.get("message") or "the container has not started"


def why_refused(message: str, otherwise: str) -> tuple[str, str]:
    """Reason and message of a create that the API server refused, ours or the Job controller's."""
    # The name of a pod is another one at each try.
    _, forbidden, said = message.partition(" is forbidden: ")
    text = said if forbidden else message
    for words, reason in _REFUSALS:
        if words in text:
            return reason, text
    return otherwise, text


def classify(
    job: Object,
    pod: Object | None,
    *,
    begun: bool,
    reported: Object | None = None,
    permanent_exit_codes: Collection[int] = (),
    told: tuple[str, str] | None = None,
) -> AttemptEnd:
    """How the attempt of a finished Job ended; `pod` None when it is gone already.

    `begun` is whether its container ever started, which a pod that is gone cannot tell any more.
    `reported` is the failure that the worker told us itself, which refines an exit code but never
    a verdict of the kubelet (deadline, OOM, eviction). `told` is as in `why_not_started`.
    """
    terminated = container_state(pod).get("terminated") or {}
    status = (pod or {}).get("status") or {}
    failed = condition(job, "Failed") or {}
    account = Account.read(terminated.get("message"), reported)
    exit_code: int | None = terminated.get("exitCode")

    def end(outcome: Outcome, reason: str, message: str | None) -> AttemptEnd:
        return AttemptEnd(
            outcome=outcome,
            reason=reason,
            message=message,
            exit_code=exit_code,
            retry_after_seconds=account.retry_after_seconds,
            started_at=container_started_at(pod),
            ended_at=time(terminated.get("finishedAt"))
            or time((job.get("status") or {}).get("completionTime"))
            or time(failed.get("lastTransitionTime")),
            pod_name=None if pod is None else pod["metadata"]["name"],
        )

    # Of what the Job controller sees late it may say that the Job's deadline had passed.
    if condition(job, "Complete") or status.get("phase") == "Succeeded":
        return with_result(end(Outcome.SUCCEEDED, "Completed", None), terminated.get("message"))
    if condition(pod, "DisruptionTarget") or "DisruptionTarget" in failed.get("message", ""):
        disruption = condition(pod, "DisruptionTarget") or failed
        reason = disruption.get("reason") or "Disrupted"
        return end(Outcome.DISRUPTED, reason, disruption.get("message"))
    backstop = failed.get("reason") == "DeadlineExceeded" and not _ended_before_backstop(job, pod)
    if status.get("reason") == "DeadlineExceeded" or backstop:
        if not begun:
            # Of a pod, or of the Job: refused a pod for so long, as by a quota, and nobody watched.
            return end(Outcome.NEVER_STARTED, *why_not_started(job, pod, told))
        message = status.get("message") or failed.get("message")
        return end(Outcome.DEADLINE, "DeadlineExceeded", message)
    if terminated.get("reason") == "OOMKilled":
        return end(Outcome.OOM, "OOMKilled", "the container exceeded its memory limit")
    if pod is None:
        return end(Outcome.LOST, "PodLost", failed.get("message") or "the pod is gone")
    if not terminated:
        if status.get("phase") in ("Pending", "Running"):
            return end(Outcome.DISRUPTED, "PodDeleted", "its pod was deleted")
        # The kubelet refused the pod (OutOfcpu, NodeAffinity …): no fault of the job's.
        return end(Outcome.DISRUPTED, status.get("reason", "Rejected"), status.get("message"))
    if terminated.get("reason") == "ContainerStatusUnknown":
        return end(Outcome.DISRUPTED, "ContainerStatusUnknown", terminated.get("message"))
    if exit_code in _KILLED and "deletionTimestamp" in pod["metadata"]:
        return end(Outcome.DISRUPTED, "PodDeleted", "its pod was deleted")
    reason = terminated.get("reason", "Error")
    return end(
        *failure(exit_code, account, permanent_exit_codes=permanent_exit_codes, reason=reason)
    )


def _ended_before_backstop(job: Object, pod: Object | None) -> bool:
    """Whether the pod, which a suspension took away, was over when the Job's deadline passed."""
    ended_at = time((container_state(pod).get("terminated") or {}).get("finishedAt"))
    began = time((job.get("status") or {}).get("startTime"))
    if ended_at is None or began is None:
        return False
    return ended_at < began + timedelta(seconds=job["spec"].get("activeDeadlineSeconds", 0))


def taken_away(pod: Object | None, told: tuple[str, str] | None) -> AttemptEnd:
    """How the attempt ended whose Job was suspended while its pod ran, once that is gone.

    The Job controller counts such a pod neither as succeeded nor as failed.
    """
    terminated = container_state(pod).get("terminated") or {}
    reason, message = told or ("Suspended", "its Job was suspended while its container ran")
    end = AttemptEnd(
        Outcome.DISRUPTED,
        reason,
        message,
        exit_code=terminated.get("exitCode"),
        started_at=container_started_at(pod),
        ended_at=time(terminated.get("finishedAt")),
        pod_name=None if pod is None else pod["metadata"]["name"],
    )
    if end.exit_code != 0:
        return end
    done = replace(end, outcome=Outcome.SUCCEEDED, reason="Completed", message=None)
    return with_result(done, terminated.get("message"))


def after_cancel(end: AttemptEnd, pod: Object | None) -> AttemptEnd:
    """The same end where a cancel was asked for, which lowers the pod's deadline to end it."""
    return exits.after_cancel(end, (container_state(pod).get("terminated") or {}).get("message"))
