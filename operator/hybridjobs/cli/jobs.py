"""Commands on jobs, through the API."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from hybridjobs import codec
from hybridjobs.cli.api import Api
from hybridjobs.cli.exits import CommandError, Exit
from hybridjobs.cli.options import (
    URL,
    AsJson,
    Before,
    Limit,
    Since,
    Token,
    Type,
    Until,
    Url,
    Yes,
    ago,
    confirm,
    query_of,
)
from hybridjobs.cli.output import print_page, seconds
from hybridjobs.cli.several import post_each
from hybridjobs.cli.tree import show_tree
from hybridjobs.cli.waiting import follow_log, print_log, show_job, wait_for_job
from hybridjobs.model import Status

Statuses = Annotated[
    list[Status] | None,
    typer.Option("--status", help="Only jobs in this state; may be given several times."),
]
Ids = Annotated[list[str], typer.Argument(metavar="ID", help="The jobs' ids.")]

_PAGE = 1000


def get(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of the job.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.", min=1)] = 900,
    logs: Annotated[
        bool, typer.Option("--logs", help="Show the log tail of each attempt.")
    ] = False,
    tree: Annotated[
        bool, typer.Option("--tree", help="Show the jobs that it submitted, and theirs.")
    ] = False,
    depth: Annotated[int, typer.Option(help="Levels of the tree.", min=0, max=32)] = 4,
    width: Annotated[int, typer.Option(help="Children of each job.", min=1, max=10_000)] = 20,
    as_json: AsJson = False,
    url: Url = URL,
    token: Token = "",
) -> None:
    """Show a job: its state, progress, result and every attempt; or what came of it."""
    if tree and (wait or logs):
        raise CommandError(Exit.USAGE, "--tree shows what is there now: without --wait and --logs")
    with Api(url, token) as api:
        if tree:
            show_tree(api, job_id, depth=depth, width=width, as_json=as_json)
            return
        if wait:
            wait_for_job(api, job_id, timeout, as_json=as_json)
            return
        query = query_of(logs="true" if logs else None)
        _, answer = api.request("GET", f"/api/jobs/{job_id}", query=query)
    if as_json:
        typer.echo(answer)
    else:
        show_job(codec.loads(answer))


def logs(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],
    attempt: Annotated[
        int | None, typer.Option(min=1, help="Of this attempt, rather than the last one.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job is over.")
    ] = False,
    url: Url = URL,
    token: Token = "",
) -> None:
    """Print a job's log: of its pod while it runs, afterwards the last 64 KiB."""
    if follow and attempt is not None:
        raise CommandError(Exit.USAGE, "--follow goes through all attempts; leave --attempt out")
    with Api(url, token) as api:
        if follow:
            follow_log(api, job_id)
        else:
            print_log(api.log(job_id, attempt)[1])


def list_(
    status: Statuses = None,
    type_: Type = None,
    key: Annotated[str | None, typer.Option(help="Only with this idempotency key.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Only from there: github, api, sql, schedule, …")
    ] = None,
    batch: Annotated[str | None, typer.Option(help="Only of this batch.", metavar="ID")] = None,
    schedule: Annotated[str | None, typer.Option(help="Only of this schedule.")] = None,
    parent: Annotated[
        str | None, typer.Option(help="Only those that this job submitted.", metavar="ID")
    ] = None,
    since: Since = None,
    until: Until = None,
    before: Before = None,
    limit: Limit = 50,
    as_json: AsJson = False,
    url: Url = URL,
    token: Token = "",
) -> None:
    """List jobs, the newest first."""
    query = query_of(
        status=_joined(status),
        type=type_,
        key=key,
        source=source,
        batch=batch,
        schedule=schedule,
        parent=parent,
        since=ago(since),
        until=ago(until),
        before=before,
        limit=limit,
    )
    with Api(url, token) as api:
        _, answer = api.request("GET", "/api/jobs", query=query)
    if as_json:
        typer.echo(answer)
        return
    print_page(
        codec.loads(answer),
        "jobs",
        ("ID", "TYPE", "STATUS", "STAGE", "ATTEMPT", "CREATED", "SECONDS", "REASON"),
        lambda job: (
            job["id"],
            job["type"],
            job["status"],
            job["stage"],
            job["attempt"],
            job["createdAt"],
            seconds(job["durationMs"]),
            job["outcomeReason"],
        ),
    )


def retry(
    job_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="The jobs' ids.")
    ] = None,
    status: Statuses = None,
    type_: Type = None,
    since: Since = None,
    until: Until = None,
    yes: Yes = False,
    as_json: AsJson = False,
    url: Url = URL,
    token: Token = "",
) -> None:
    """Run failed or cancelled jobs once more: those named, or all that match the filters.

    Exits 1 if one of them could not be.

    Example: hybridjobs retry --status failed --type capture/repository.sync --since 2h
    """
    filters = query_of(
        status=_joined(status), type=type_, since=ago(since), until=ago(until), limit=_PAGE
    )
    if bool(job_ids) == (len(filters) > 1):
        raise CommandError(Exit.USAGE, "name jobs by their ids, or say which by filters")
    filters.setdefault("status", Status.FAILED.value)
    with Api(url, token) as api:
        chosen = job_ids
        if not chosen:
            chosen = list(_matching(api, filters))
            confirm(f"Run {len(chosen)} jobs once more?", yes=yes)
        post_each(api, chosen, "/api/jobs/{}/retry", done=_status, as_json=as_json)


def cancel(
    job_ids: Ids,
    as_json: AsJson = False,
    url: Url = URL,
    token: Token = "",
) -> None:
    """Cancel jobs: queued ones at once, running ones are asked to end.

    Exits 1 if one of them is over already.
    """
    with Api(url, token) as api:
        post_each(api, job_ids, "/api/jobs/{}/cancel", done=_status, as_json=as_json)


def _status(answer: Mapping[str, Any]) -> str:
    return str(answer["status"])


def _joined(statuses: list[Status] | None) -> str | None:
    return ",".join(statuses) if statuses else None


def _matching(api: Api, query: dict[str, str | int]) -> Iterator[str]:
    before: str | None = None
    while True:
        _, answer = api.request("GET", "/api/jobs", query=query | query_of(before=before))
        page = codec.loads(answer)
        yield from (job["id"] for job in page["jobs"])
        before = page["next"]
        if before is None:
            return
