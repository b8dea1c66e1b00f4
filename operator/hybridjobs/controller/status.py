"""The status of a HybridJob: the row's story in the cluster's words. Pure."""

from datetime import datetime
from typing import Any

from hybridjobs.controller.observe import why_not_started
from hybridjobs.kube.times import time_text
from hybridjobs.model import Status
from hybridjobs.store.attempts import JobState

Object = dict[str, Any]

_MAX_MESSAGE = 1024


def hybridjob_status(
    row: JobState,
    hybridjob: Object,
    *,
    job: Object | None,
    pod: Object | None,
    now: datetime,
    told: tuple[str, str] | None = None,
) -> Object:
    """The whole `status`; unchanged conditions keep their times, so that equal means no write.

    `told` is why there is no pod, or no Job, where others say it.
    """
    reason, message = row.outcome_reason, row.error
    waits = row.open_attempt is not None and row.status is Status.QUEUED
    if waits and (job is not None or told is not None):
        reason, message = why_not_started(job, pod, told)
    status: Object = {
        "state": row.status.value,
        "attempt": row.attempt,
        "deadlineSeconds": row.deadline_seconds,
        "reason": reason,
        "message": _cut(message),
        "jobName": None if job is None else job["metadata"]["name"],
        "podName": row.pod_name or (None if pod is None else pod["metadata"]["name"]),
        "exitCode": row.exit_code,
        "startedAt": _text(row.started_at),
        "finishedAt": _text(row.finished_at or row.attempt_ended_at)
        if row.status.is_terminal
        else None,
        "duration": _duration(row.duration_ms),
        "observedGeneration": hybridjob["metadata"].get("generation"),
    }
    old = {each["type"]: each for each in (hybridjob.get("status") or {}).get("conditions") or []}
    status["conditions"] = [
        _dated({**each, "observedGeneration": status["observedGeneration"]}, old, now)
        for each in _conditions(row, reason or "Queued", _cut(message) or "")
    ]
    return status


def not_accepted_status(hybridjob: Object, *, reason: str, message: str, now: datetime) -> Object:
    """The status of a HybridJob that has no row."""
    generation = hybridjob["metadata"].get("generation")
    old = {each["type"]: each for each in (hybridjob.get("status") or {}).get("conditions") or []}
    accepted = {
        "type": "Accepted",
        "status": "False",
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
    }
    return {
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "conditions": [_dated(accepted, old, now)],
    }


def _conditions(row: JobState, reason: str, message: str) -> list[Object]:
    over = row.status.is_terminal
    verdict = {Status.COMPLETED: "True", Status.FAILED: "False", Status.CANCELLED: "False"}
    return [
        _condition("Accepted", "True", "RowWritten", "the job is in the database"),
        _condition("Started", "True", "ContainerStarted", "")
        if row.started_at
        else _condition("Started", "False", reason, message),
        _condition("Finished", "True" if over else "False", reason, message if over else ""),
        _condition(
            "Succeeded", verdict.get(row.status, "Unknown"), reason, message if over else ""
        ),
        _condition(
            "OutcomeRecorded",
            "True" if over else "False",
            "Committed" if over else "NotFinished",
            "",
        ),
    ]


def _condition(type_: str, status: str, reason: str, message: str) -> Object:
    return {"type": type_, "status": status, "reason": reason, "message": message}


def _dated(condition: Object, old: dict[str, Object], now: datetime) -> Object:
    before = old.get(condition["type"])
    same = before is not None and before["status"] == condition["status"]
    return {
        **condition,
        "lastTransitionTime": before["lastTransitionTime"] if before and same else _text(now),
    }


def _cut(message: str | None) -> str | None:
    if message is None or len(message) <= _MAX_MESSAGE:
        return message
    return message[: _MAX_MESSAGE - 1] + "…"


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else time_text(moment)


def _duration(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    seconds = milliseconds // 1000
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{seconds % 60}s" if minutes else f"{seconds}s"
