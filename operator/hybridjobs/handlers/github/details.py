"""`capture/pr.details`: pull requests, with all that GitHub knows of them."""

from hybridjobs.handlers.github.capturing import capturing
from hybridjobs.handlers.github.over_numbers import Position, outcome, over_numbers, set_captured
from hybridjobs.handlers.github.passes import updated_at
from hybridjobs.handlers.github.payloads import Numbers
from hybridjobs.handlers.github.rows import base_repository, pull_request_row
from hybridjobs.sdk import Context, handler


@handler("capture/pr.details")
async def pull_request_details(payload: Numbers, context: Context) -> dict[str, object]:
    """Store up to 100 pull requests, their people and their repository; returns counts and notes.

    Of a single one, its ids and its state instead; that one must be there.
    """
    position = Position.model_validate(context.checkpoint or {})
    is_single = len(payload.numbers) == 1
    single: dict[str, object] = {}
    async with capturing(context, position.tally, is_quick=is_single) as job:
        await job.choose(payload)

        async def capture(number: int) -> None:
            found = await job.github.pull_request(job.owner, job.name, number)
            repository = base_repository(found)
            written = await job.store(repository, found)
            await set_captured(job, "pull_request", "details", number, updated_at(found))
            if is_single:
                single.update(
                    pullRequestId=str(await job.tables.pull_request_id(found["id"])),
                    githubId=found["id"],
                    number=found["number"],
                    state=pull_request_row(found, repository["full_name"])["state"],
                    new=written.pull_requests.inserted == 1,
                )

        await over_numbers(job, position, payload.numbers, capture, must_exist=is_single)
        found = {"repositoryId": str(job.repository_id), **single}
        return await job.complete(found if single else outcome(job, position))
