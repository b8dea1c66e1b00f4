"""Kubernetes objects as the API server shows them, cut to what is read."""

from typing import Any
from uuid import UUID

JOB_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def hybridjob(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "test-long-b302099a8057",
            "uid": "hj-1",
            "namespace": "jobs",
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"type": "test/long", "jobId": str(JOB_ID), "attempt": 1, **spec},
    }


def job(
    *conditions: dict[str, Any], uid: str = "job-1", owner: str = "hj-1", **spec: Any
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"hj-{JOB_ID}-1",
            "uid": uid,
            "ownerReferences": [{"uid": owner, "controller": True}],
        },
        "spec": {"activeDeadlineSeconds": 1230, **spec},
        "status": {"startTime": "2026-01-01T00:00:00Z", "conditions": list(conditions)},
    }


def condition(type_: str, reason: str = "", message: str = "") -> dict[str, Any]:
    return {
        "type": type_,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-01T00:01:00Z",
    }


COMPLETE = condition("Complete")
FAILED = condition("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")


def pod(
    *conditions: dict[str, Any], state: dict[str, Any] | None = None, **status: Any
) -> dict[str, Any]:
    statuses = [] if state is None else [{"name": "main", "state": state}]
    return {
        "metadata": {"name": f"hj-{JOB_ID}-1-abcde", "uid": "pod-1"},
        "spec": {"activeDeadlineSeconds": 900},
        "status": {"conditions": list(conditions), "containerStatuses": statuses, **status},
    }


RUNNING = {"running": {"startedAt": "2026-01-01T00:00:02Z"}}


def terminated(exit_code: int, reason: str = "Error", message: str | None = None) -> dict[str, Any]:
    ended = {
        "exitCode": exit_code,
        "reason": reason,
        "startedAt": "2026-01-01T00:00:02Z",
        "finishedAt": "2026-01-01T00:00:12Z",
    }
    return {"terminated": ended if message is None else {**ended, "message": message}}
