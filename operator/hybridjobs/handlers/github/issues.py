"""`capture/repository.issues`: a repository's issues changed within some days."""

from collections.abc import AsyncIterator
from datetime import datetime

from hybridjobs.handlers.github.capturing import capturing
from hybridjobs.handlers.github.client import ListPage, Object
from hybridjobs.handlers.github.fan_out import OF_ISSUES, fan_out
from hybridjobs.handlers.github.passes import Passage, read_all, updated_at
from hybridjobs.handlers.github.payloads import RepositoryIssues
from hybridjobs.handlers.github.rows import page
from hybridjobs.sdk import Context, handler


class Position(Passage):
    """Counts beside the pages."""

    issues: int = 0  # without the pull requests among them, of all passes


@handler("capture/repository.issues")
async def repository_issues(payload: RepositoryIssues, context: Context) -> dict[str, object]:
    """Store every issue changed within `days`, and submit jobs for their comments; counts."""
    position = Position.of(context, payload.days)
    async with capturing(context, position.tally) as job:
        repository = await job.open(payload)

        def pages(since: datetime, cursor: str | None) -> AsyncIterator[ListPage]:
            return job.github.issues(job.owner, job.name, since=since, cursor=cursor)

        async def write(changed: list[Object]) -> None:
            issues = [each for each in changed if not each.get("pull_request")]
            async with job.tables.writing(page(repository, issues=issues)) as written:
                position.tally.add(written)
                silent = {
                    each["number"]: updated_at(each) for each in issues if each.get("comments") == 0
                }
                # Nobody said anything of these: there is nothing to ask for.
                await job.tables.captures.set_captured(
                    "issue", job.repository_id, ["comments"], silent
                )
                numbers = [each["number"] for each in issues]
                await fan_out(job, position, "issue", OF_ISSUES, numbers=numbers)
                await job.note_progress()
            position.issues += len(issues)

        if repository.get("has_issues") is not False:
            await read_all(position, context, pages, write, "issues and pull requests")
        return await job.complete(
            {
                **job.names(),
                "pages": position.pages,
                "issues": position.issues,
                "inserted": position.tally.inserted,
                "followUps": position.follow_ups,
                "issuesAreOff": repository.get("has_issues") is False,
            }
        )
