"""What can be done for one HybridJob: `decide` names it, the executor does it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from hybridjobs.controller.observe import Object
from hybridjobs.model import AttemptEnd


@dataclass(frozen=True, slots=True)
class CountUp:
    """Open the attempt that the HybridJob says: the database was restored from before it."""


@dataclass(frozen=True, slots=True)
class CreateJob:
    """Bind the HybridJob to the attempt, then create its Kubernetes Job."""


@dataclass(frozen=True, slots=True)
class BindJob:
    """Record which Kubernetes Job runs the attempt."""

    uid: str


@dataclass(frozen=True, slots=True)
class OwnJob:
    """Make the attempt's Job the HybridJob's own: the one that it was made for is gone."""


@dataclass(frozen=True, slots=True)
class RecordStart:
    """The container runs."""

    started_at: datetime


@dataclass(frozen=True, slots=True)
class RecordEnd:
    """Record the outcome of the open attempt; then, if it may still run, remove its Job."""

    end: AttemptEnd
    remove_job: bool = False


@dataclass(frozen=True, slots=True)
class AddEvidence:
    """Add the log tail and exit code to an attempt that its worker closed."""

    end: AttemptEnd


@dataclass(frozen=True, slots=True)
class RequestCancel:
    """Take `spec.cancel` over into the row."""


@dataclass(frozen=True, slots=True)
class RemoveJob:
    """Delete the Job of an attempt that is closed: it has not begun, or another one has."""

    job: Object


@dataclass(frozen=True, slots=True)
class EndPod:
    """Lower the pod's deadline to 1 s: it ends in place, and its log stays."""


@dataclass(frozen=True, slots=True)
class ReleaseHybridJob:
    """Delete the HybridJob for the time of a long backoff; it is made again afterwards."""


@dataclass(frozen=True, slots=True)
class PatchStatus:
    """Bring the HybridJob's status up to date."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again after that time even if nothing happens."""

    delay: timedelta


Action = (
    CountUp
    | CreateJob
    | BindJob
    | OwnJob
    | RecordStart
    | RecordEnd
    | AddEvidence
    | RequestCancel
    | RemoveJob
    | EndPod
    | ReleaseHybridJob
    | PatchStatus
    | Wait
)
