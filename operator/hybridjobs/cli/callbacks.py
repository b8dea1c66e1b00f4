"""Commands on callbacks: what was told of jobs that ended, and to whom."""

from typing import Annotated

import typer

from hybridjobs import codec
from hybridjobs.cli.api import Api
from hybridjobs.cli.options import URL, AsJson, Before, Limit, Token, Type, Url, query_of
from hybridjobs.cli.output import console, print_facts, print_page, print_table, text
from hybridjobs.cli.several import post_each

_FACTS = (
    "id",
    "jobId",
    "type",
    "event",
    "url",
    "status",
    "attempts",
    "lastCode",
    "lastError",
    "createdAt",
    "nextAt",
    "deliveredAt",
    "secret",
    "response",
)

app = typer.Typer(
    no_args_is_help=True, help="Callbacks of jobs that ended: how they went, and once more."
)


@app.command("list")
def list_(
    job: Annotated[str | None, typer.Option(metavar="ID", help="Only of this job.")] = None,
    type_: Type = None,
    status: Annotated[
        str | None,
        typer.Option(metavar="pending|delivered|failed|disabled", help="Only in this status."),
    ] = None,
    before: Before = None,
    limit: Limit = 50,
    as_json: AsJson = False,
    url: Url = URL,
    token: Token = "",
) -> None:
    """List callbacks, the newest first."""
    query = query_of(job=job, type=type_, status=status, before=before, limit=limit)
    with Api(url, token) as api:
        _, answer = api.request("GET", "/api/callbacks", query=query)
    if as_json:
        typer.echo(answer)
        return
    print_page(
        codec.loads(answer),
        "callbacks",
        ("ID", "JOB", "EVENT", "STATUS", "TRIES", "CODE", "NEXT", "URL", "ERROR"),
        lambda each: (
            each["id"],
            each["jobId"],
            each["event"],
            each["status"],
            each["attempts"],
            each["lastCode"],
            each["nextAt"],
            each["url"],
            each["lastError"],
        ),
    )


@app.command()
def show(
    callback_id: Annotated[str, typer.Argument(metavar="ID", help="The callback's id.")],
    as_json: AsJson = False,
    url: Url = URL,
    token: Token = "",
) -> None:
    """Show a callback: its last tries, and the body that is sent."""
    with Api(url, token) as api:
        _, answer = api.request("GET", f"/api/callbacks/{callback_id}")
    if as_json:
        typer.echo(answer)
        return
    found = codec.loads(answer)
    print_facts((name, found[name]) for name in _FACTS)
    print_table(
        ("TRY", "AT", "MS", "CODE", "ERROR"),
        (
            [entry[name] for name in ("attempt", "at", "durationMs", "code", "error")]
            for entry in found["tries"]
        ),
    )
    console().print(text(codec.members(answer)["body"]))


@app.command()
def redeliver(
    callback_ids: Annotated[list[str], typer.Argument(metavar="ID", help="The callbacks' ids.")],
    as_json: AsJson = False,
    url: Url = URL,
    token: Token = "",
) -> None:
    """Send callbacks once more, with the webhook-id that they had.

    Exits 1 if one of them is being sent already.
    """
    with Api(url, token) as api:
        path = "/api/callbacks/{}/redeliver"
        post_each(api, callback_ids, path, done=lambda _: "goes once more", as_json=as_json)
