"""`classify/repository.single` and `classify/repository.size`: how large repositories are."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from hybridjobs.handlers.github.capturing import Tally, capturing
from hybridjobs.handlers.github.classification import size_of
from hybridjobs.handlers.github.client import Object
from hybridjobs.handlers.github.measuring import Position, measure
from hybridjobs.handlers.github.payloads import RepositoryChoice, repository_named
from hybridjobs.handlers.github.tables import ChildJob
from hybridjobs.sdk import Context, RetryLater, handler

SINGLE = "classify/repository.single"
# Four requests each: what a personal token has for an hour. The next tick finds the others.
AT_MOST = 1000


class RepositoriesToClassify(BaseModel):
    """`{"limit"?}`: of how many repositories at most; all of them are found in time."""

    limit: Annotated[int, Field(ge=1, le=AT_MOST)] = AT_MOST


@handler(SINGLE)
async def classify_repository(payload: RepositoryChoice, context: Context) -> dict[str, object]:
    """Store a repository's size and the figures it was found by; returns both.

    Each figure goes into the checkpoint: a later attempt asks for none of them again.
    """
    kept = context.checkpoint
    position = None if kept is None else Position.model_validate(kept)
    tally = Tally() if position is None else position.tally
    async with capturing(context, tally) as job:
        if position is None:
            position = _begin(await job.open(payload), tally)
            await context.save_checkpoint(position)
        else:
            await job.choose(payload)

        async def save() -> None:
            await job.note_progress()
            await context.save_checkpoint(position)

        try:
            await measure(job, position, save)
        except RetryLater:
            await save()
            raise
        metrics = position.metrics()
        size = size_of(metrics)
        figures = {**metrics.document(), "lastCalculated": position.began.isoformat()}
        await job.tables.repositories.set_size(job.repository_id, size, figures)
        return await job.complete({**job.names(), "size": size, "metrics": figures})


@handler("classify/repository.size")
async def classify_repositories(
    payload: RepositoriesToClassify, context: Context
) -> dict[str, object]:
    """Have those repositories classified whose size is unknown or old; returns how many.

    One that is being classified already is left alone.
    """
    async with capturing(context, Tally()) as job, job.tables.connection.transaction():
        chosen = await job.tables.repositories.to_classify(payload.limit)
        jobs = [classification_of(each.id, each.full_name, context.job_id) for each in chosen]
        ids = await job.tables.submit(context.job_id, jobs)
        return await job.complete(
            {"repositories": len(chosen), "jobs": [str(each) for each in ids]}
        )


def classification_of(repository_id: UUID, full_name: str, parent: UUID) -> ChildJob:
    """The job that classifies a repository: one a parent, and one at a time."""
    return ChildJob(
        SINGLE,
        repository_named(repository_id, full_name),
        key=f"{parent}/{repository_id}",
        repository_id=repository_id,
        unique_key=str(repository_id),
    )


def _begin(repository: Object, tally: Tally) -> Position:
    """With the two figures that a repository tells itself."""
    stars, forks = (_count(repository, each) for each in ("stargazers_count", "forks_count"))
    return Position(began=datetime.now(UTC), found={"stars": stars, "forks": forks}, tally=tally)


def _count(repository: Object, name: str) -> int | None:
    """As `rows` has checked it."""
    found: int | None = repository.get(name)
    return found
