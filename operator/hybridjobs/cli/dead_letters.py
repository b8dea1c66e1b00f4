"""Commands on dead letters: jobs that failed for good."""

from typing import Annotated

import typer

from hybridjobs import codec
from hybridjobs.cli.api import Api
from hybridjobs.cli.exits import CommandError, Exit
from hybridjobs.cli.options import (
    URL,
    AsJson,
    Before,
    By,
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
from hybridjobs.cli.output import console, print_facts, print_page, print_table, text
from hybridjobs.cli.several import post_each
from hybridjobs.model import ErrorCategory

Id = Annotated[str, typer.Argument(metavar="ID", help="The dead letter's id.")]
Category = Annotated[ErrorCategory | None, typer.Option(help="Only with this kind of trouble.")]

_FACTS = (
    "id",
    "jobId",
    "type",
    "errorCategory",
    "failureCount",
    "firstFailedAt",
    "lastFailedAt",
    "error",
    "resolvedAt",
    "resolvedBy",
    "resolutionNotes",
)

app = typer.Typer(
    no_args_is_help=True, help="Dead letters: read them, run their jobs once more, close them."
)


@app.command("list")
def list_(
    type_: Type = None,
    category: Category = None,
    since: Since = None,
    until: Until = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Closed ones instead of open ones.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Open and closed ones.")] = False,
    before: Before = None,
    limit: Limit = 50,
    as_json: AsJson = False,
    url: Url = URL,
    token: Token = "",
) -> None:
    """List dead letters, the newest first; those that are open, unless told otherwise."""
    query = query_of(
        type=type_,
        category=category,
        since=ago(since),
        until=ago(until),
        resolved="any" if everything else "true" if resolved else None,
        before=before,
        limit=limit,
    )
    with Api(url, token) as api:
        _, answer = api.request("GET", "/api/dead-letters", query=query)
    if as_json:
        typer.echo(answer)
        return
    print_page(
        codec.loads(answer),
        "deadLetters",
        ("ID", "JOB", "TYPE", "CATEGORY", "FAILURES", "LAST FAILED", "RESOLVED BY", "ERROR"),
        lambda letter: (
            letter["id"],
            letter["jobId"],
            letter["type"],
            letter["errorCategory"],
            letter["failureCount"],
            letter["lastFailedAt"],
            letter["resolvedBy"],
            letter["error"],
        ),
    )


@app.command()
def show(
    letter_id: Id,
    as_json: AsJson = False,
    url: Url = URL,
    token: Token = "",
) -> None:
    """Show a dead letter: how each attempt failed, and the payload."""
    with Api(url, token) as api:
        _, answer = api.request("GET", f"/api/dead-letters/{letter_id}")
    if as_json:
        typer.echo(answer)
        return
    letter = codec.loads(answer)
    print_facts((name, letter[name]) for name in _FACTS)
    print_table(
        ("ATTEMPT", "OUTCOME", "REASON", "ENDED", "MESSAGE"),
        (
            [entry.get(name) for name in ("attempt", "outcome", "reason", "endedAt", "message")]
            for entry in letter["errorHistory"]
        ),
    )
    console().print(text(codec.members(answer)["payload"]))


@app.command()
def redrive(
    letter_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="The dead letters' ids.")
    ] = None,
    type_: Type = None,
    category: Category = None,
    since: Since = None,
    until: Until = None,
    everything: Annotated[bool, typer.Option("--all", help="Every one that is open.")] = False,
    per_second: Annotated[
        float, typer.Option(help="How many jobs may start a second.", max=1000)
    ] = 10,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 10_000,
    yes: Yes = False,
    by: By = None,
    as_json: AsJson = False,
    url: Url = URL,
    token: Token = "",
) -> None:
    """Run jobs of dead letters once more: those named, or all that match, the oldest first.

    Example: hybridjobs dlq redrive --category external_api --since 1d --per-second 5
    """
    filters = query_of(type=type_, category=category, since=ago(since), until=ago(until))
    if bool(letter_ids) == bool(filters or everything):
        raise CommandError(Exit.USAGE, "name dead letters by their ids, or filters, or say --all")
    who = query_of(by=by)
    with Api(url, token) as api:
        if letter_ids:
            post_each(
                api,
                letter_ids,
                "/api/dead-letters/{}/redrive",
                content=codec.dumps(who),
                done=lambda answer: f"job {answer['jobId']} runs once more",
                as_json=as_json,
            )
            return
        confirm("Run the jobs of all these dead letters once more?", yes=yes)
        asked = {**filters, "perSecond": per_second, "limit": limit, **who}
        _, answer = api.request("POST", "/api/dead-letters:redrive", content=codec.dumps(asked))
        jobs = codec.loads(answer)["redriven"]
        typer.echo(answer if as_json else f"{jobs} jobs run once more")


@app.command()
def resolve(
    letter_id: Id,
    notes: Annotated[str, typer.Option(help="Why nothing more is to be done.")] = "",
    by: By = None,
    as_json: AsJson = False,
    url: Url = URL,
    token: Token = "",
) -> None:
    """Close a dead letter without another run."""
    content = codec.dumps({"notes": notes, **query_of(by=by)})
    with Api(url, token) as api:
        path = f"/api/dead-letters/{letter_id}/resolve"
        _, answer = api.request("POST", path, content=content)
    typer.echo(answer if as_json else f"{letter_id} resolved")
