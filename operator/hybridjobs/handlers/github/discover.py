"""`discover/repository.new`: a repository that is to be kept up to date from now on."""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from hybridjobs.handlers.github.capturing import Tally, capturing
from hybridjobs.handlers.github.classify import classification_of
from hybridjobs.handlers.github.payloads import RepositoryRef, repository_named
from hybridjobs.handlers.github.rows import page
from hybridjobs.handlers.github.tables import ChildJob
from hybridjobs.sdk import Context, handler

SYNC = "capture/repository.sync.graphql"
SYNC_DAYS = 30
# As minutes of waiting: somebody has just asked for it.
HIGH_PRIORITY = 50
# The shortest cooldown: that a repository was synced a moment ago is all that may stop this one.
REASON = "manual"


class RepositoryToDiscover(RepositoryRef):
    """`{"owner", "repo", "source"?}`, or a delivery with a `repository`; source: who found it."""

    source: Annotated[str, Field(max_length=100)] | None = None


@handler("discover/repository.new")
async def discover_repository(payload: RepositoryToDiscover, context: Context) -> dict[str, object]:
    """Store the repository, track it, and have it classified and synced: in one transaction.

    One that is tracked already is only synced again. Returns its ids, and those of the jobs.
    """
    async with capturing(context, Tally()) as job:
        job.owner, job.name = payload.owner, payload.repo
        found = await job.ask()
        rows = page(found)  # refuses what is no repository
        full_name = str(found["full_name"])
        async with job.tables.writing(rows) as written:
            repository_id = written.repository_id
            is_new = await job.tables.repositories.track(repository_id, "high")
            jobs = [_sync_of(repository_id, full_name, context.job_id)]
            if is_new:
                jobs.insert(0, classification_of(repository_id, full_name, context.job_id))
            ids = await job.tables.submit(context.job_id, jobs)
        await job.is_about(repository_id, found["id"], full_name)
        submitted = {each.type: str(id_) for each, id_ in zip(jobs, ids, strict=True)}
        return await job.complete(
            {**job.names(), "source": payload.source, "new": is_new, "jobs": submitted}
        )


def _sync_of(repository_id: UUID, full_name: str, parent: UUID) -> ChildJob:
    return ChildJob(
        SYNC,
        {
            **repository_named(repository_id, full_name),
            "days": SYNC_DAYS,
            "priority": "high",
            "reason": REASON,
        },
        key=f"{parent}/{repository_id}",
        repository_id=repository_id,
        priority=HIGH_PRIORITY,
    )
