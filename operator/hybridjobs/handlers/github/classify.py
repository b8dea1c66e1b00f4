"""`classify/repository.single` and `classify/repository.size`: how large repositories are."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from hybridjobs.handlers.github.asking import ask_repository
from hybridjobs.handlers.github.classification import size_of
from hybridjobs.handlers.github.client import GitHubClient, Object, github_client
from hybridjobs.handlers.github.measuring import Position, measure
from hybridjobs.handlers.github.payloads import RepositoryChoice
from hybridjobs.handlers.github.rows import page
from hybridjobs.handlers.github.tables import (
    ChildJob,
    GitHubTables,
    KnownRepository,
    github_tables,
)
from hybridjobs.sdk import Context, PermanentError, handler

SINGLE = "classify/repository.single"
# Four requests each: what a personal token has for an hour. The next tick finds the others.
AT_MOST = 1000
_RETRIES = 3


class RepositoriesToClassify(BaseModel):
    """`{"limit"?}`: of how many repositories at most; all of them are found in time."""

    limit: Annotated[int, Field(ge=1, le=AT_MOST)] = AT_MOST


@handler(SINGLE)
async def classify_repository(payload: RepositoryChoice, context: Context) -> dict[str, object]:
    """Store a repository's size and the figures it was found by; returns both.

    Each figure goes into the checkpoint: a later attempt asks for none of them again.
    """
    async with (
        github_tables() as tables,
        github_client(tables.connection, retries=_RETRIES) as github,
    ):
        if context.checkpoint is None:
            position = await _begin(github, tables, payload)
            await context.save_checkpoint(position)
        else:
            position = Position.model_validate(context.checkpoint)
        await tables.captures.set_job_repository(context.job_id, position.repository_id)
        await measure(github, position, context.save_checkpoint)
        metrics = position.metrics()
        size = size_of(metrics)
        figures = {**metrics.document(), "lastCalculated": position.began.isoformat()}
        await tables.repositories.set_size(position.repository_id, size, figures)
        return {
            "repositoryId": str(position.repository_id),
            "fullName": f"{position.owner}/{position.name}",
            "size": size,
            "metrics": figures,
        }


@handler("classify/repository.size")
async def classify_repositories(
    payload: RepositoriesToClassify, context: Context
) -> dict[str, object]:
    """Have those repositories classified whose size is unknown or old; returns how many.

    One that is being classified already is left alone.
    """
    async with github_tables() as tables, tables.connection.transaction():
        chosen = await tables.repositories.to_classify(payload.limit)
        jobs = [classification_of(each.id, each.full_name, context.job_id) for each in chosen]
        ids = await tables.submit(context.job_id, jobs)
    return {"repositories": len(chosen), "jobs": [str(each) for each in ids]}


def classification_of(repository_id: UUID, full_name: str, parent: UUID) -> ChildJob:
    """The job that classifies a repository: one a parent, and one at a time."""
    owner, _, repo = full_name.partition("/")
    return ChildJob(
        SINGLE,
        {"repositoryId": str(repository_id), "owner": owner, "repo": repo},
        key=f"{parent}/{repository_id}",
        repository_id=repository_id,
        unique_key=str(repository_id),
    )


async def _begin(github: GitHubClient, tables: GitHubTables, payload: RepositoryChoice) -> Position:
    """Store the repository as it is now, with two of its figures."""
    known = await _known(tables, payload)
    asked = f"{payload.owner}/{payload.repo}" if known is None else known.full_name
    owner, _, name = asked.partition("/")
    found = await ask_repository(github, tables, owner, name)
    rows = page(found)
    if known is not None and known.github_id != rows.repository_github_id:
        await tables.repositories.set_gone(known.id)
        raise PermanentError(
            f"{known.full_name} is another repository by now; discover the one that had this name"
            " by its new one"
        )
    written = await tables.write(rows)
    owner, _, name = str(found["full_name"]).partition("/")
    return Position(
        began=datetime.now(UTC),
        repository_id=written.repository_id,
        owner=owner,
        name=name,
        found={"stars": _count(found, "stargazers_count"), "forks": _count(found, "forks_count")},
    )


async def _known(tables: GitHubTables, payload: RepositoryChoice) -> KnownRepository | None:
    """The one that is meant, where an id says which."""
    if payload.repository_id is None:
        return None
    known = await tables.repositories.by_id(payload.repository_id)
    if known is None:
        raise PermanentError(
            f"no repository {payload.repository_id} is stored: discover it, or name it by owner"
            " and repo"
        )
    return known


def _count(repository: Object, name: str) -> int | None:
    """As `rows` has checked it."""
    found: int | None = repository.get(name)
    return found
