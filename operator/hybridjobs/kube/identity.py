"""Which job a HybridJob stands for, who made it, and whether it is over."""

from datetime import datetime
from typing import Any
from uuid import UUID

from hybridjobs.ids import derived_id
from hybridjobs.model import Status

Object = dict[str, Any]


def job_id(hybridjob: Object) -> UUID:
    """The row's id: as dispatched, or, of one made by hand, derived from its uid."""
    if "jobId" in hybridjob["spec"]:
        return UUID(hybridjob["spec"]["jobId"])
    return _own_id(hybridjob)


def is_dispatched(hybridjob: Object) -> bool:
    """Whether the dispatcher made this HybridJob, rather than a person by kubectl.

    Not by its name: one that a person made, and that was lost, is made again under its name.
    """
    return job_id(hybridjob) != _own_id(hybridjob)


def is_over(hybridjob: Object) -> bool:
    """Whether a HybridJob shows that its job has ended."""
    state = (hybridjob.get("status") or {}).get("state")
    return state is not None and Status(state).is_terminal


def _own_id(hybridjob: Object) -> UUID:
    metadata = hybridjob["metadata"]
    return derived_id(metadata["uid"], datetime.fromisoformat(metadata["creationTimestamp"]))
