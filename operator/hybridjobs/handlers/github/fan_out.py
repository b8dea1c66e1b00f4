"""Submits the follow-up jobs of a page, within the transaction that stores it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType

from hybridjobs.handlers.github.capturing import Capture
from hybridjobs.handlers.github.follow_ups import Part, Subject, follow_ups
from hybridjobs.handlers.github.passes import Passage
from hybridjobs.handlers.github.payloads import repository_named

# Of one sync: the parts of ten thousand pull requests. What is beyond stays due for the next one.
MAX_FOLLOW_UPS = 300

Types = Mapping[str, Sequence[Part]]
OF_PULL_REQUESTS: Types = MappingProxyType(
    {
        "capture/pr.details": ("details",),
        "capture/pr.reviews": ("reviews",),
        "capture/pr.comments": ("comments",),
    }
)
BY_GRAPHQL: Types = MappingProxyType(
    {"capture/pr.details.graphql": ("details", "reviews", "comments")}
)
OF_ISSUES: Types = MappingProxyType({"capture/issue.comments": ("comments",)})


async def fan_out(
    job: Capture,
    passage: Passage,
    subject: Subject,
    types: Types,
    *,
    numbers: Sequence[int] | None,
    priority: int = 0,
) -> None:
    """Submit jobs for what is due of those numbers, or of the whole repository.

    None where the job does not run in the queue: it was started by hand, alone.
    """
    left = MAX_FOLLOW_UPS - passage.follow_ups
    if not job.runs_in_queue or left <= 0:
        return
    parts = [part for of in types.values() for part in of]
    due = await job.tables.captures.due(subject, job.repository_id, parts, numbers=numbers)
    jobs = follow_ups(
        due,
        types,
        repository=repository_named(job.repository_id, job.full_name),
        parent=job.context.job_id,
        now=datetime.now(UTC),
        priority=priority,
    )
    submitted = await job.tables.captures.submit(
        subject, job.context.job_id, job.repository_id, jobs[:left]
    )
    passage.follow_ups += len(submitted)
