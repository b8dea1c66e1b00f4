"""`capture/pr.details`: one pull request, with all that GitHub knows of it."""

from hybridjobs.handlers.github.client import github_client
from hybridjobs.handlers.github.payloads import PullRequestRef
from hybridjobs.handlers.github.rows import page
from hybridjobs.handlers.github.tables import github_tables
from hybridjobs.sdk import Context, handler


@handler("capture/pr.details")
async def pull_request_details(payload: PullRequestRef, context: Context) -> dict[str, object]:
    """Store a pull request, its people and its repository; returns their ids and its state."""
    async with github_tables() as tables, github_client(tables.connection) as github:
        found = await github.pull_request(payload.owner, payload.repo, payload.number)
        rows = page(found["base"]["repo"], [found])
        written = await tables.write(rows)
        await tables.captures.set_job_repository(context.job_id, written.repository_id)
        return {
            "pullRequestId": str(await tables.pull_request_id(found["id"])),
            "repositoryId": str(written.repository_id),
            "githubId": found["id"],
            "number": found["number"],
            "state": rows.pull_requests[0]["state"],
            "new": written.pull_requests.inserted == 1,
        }
