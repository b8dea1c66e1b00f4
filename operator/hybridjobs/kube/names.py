"""Names and labels of our objects: all follow from the job's id, type and attempt."""

import re
from uuid import UUID

from hybridjobs.model import GROUP

JOB_ID = f"{GROUP}/job-id"
ATTEMPT = f"{GROUP}/attempt"
HYBRIDJOB = f"{GROUP}/hybridjob"
TYPE = f"{GROUP}/type"
QUEUE = "kueue.x-k8s.io/queue-name"
TRACEPARENT = f"{GROUP}/traceparent"
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED = {MANAGED_BY: "hybridjobs"}
SELECTOR = f"{MANAGED_BY}=hybridjobs"

CONTAINER = "main"
MAX_NAME = 63  # a HybridJob's name is a label value on its Jobs and pods
_ID_DIGITS = 12


def hybridjob_name(type_: str, job_id: UUID) -> str:
    """`capture/pr.details` → `capture-pr-details-<last 12 hex digits of the id>`."""
    slug = re.sub(r"[^a-z0-9]+", "-", type_).strip("-")[: MAX_NAME - _ID_DIGITS - 1].rstrip("-")
    return f"{slug}-{job_id.hex[-_ID_DIGITS:]}"


def job_name(job_id: UUID, attempt: int) -> str:
    """The Kubernetes Job of one attempt."""
    return f"hj-{job_id}-{attempt}"


def pod_prefix(job_id: UUID, attempt: int) -> str:
    """How the name of that Job's pod begins."""
    return f"{job_name(job_id, attempt)}-"
