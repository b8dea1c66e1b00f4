"""Commands that submit jobs, through the API."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from hybridjobs import codec
from hybridjobs.cli.api import Api
from hybridjobs.cli.exits import CommandError, Exit
from hybridjobs.cli.options import URL, AsJson, Token, Url, ahead
from hybridjobs.cli.waiting import wait_for_batch, wait_for_job
from hybridjobs.model import MAX_DEADLINE_SECONDS, MAX_RETRIES

_BATCH_SECONDS = 120.0


def submit(
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="The job type.")],
    payload: Annotated[
        str,
        typer.Option("--payload", "-p", help="JSON, @FILE, or - for standard input."),
    ] = "{}",
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same key gives the same job.")
    ] = None,
    priority: Annotated[
        int | None, typer.Option(min=-100, max=100, help="Higher goes first.")
    ] = None,
    deadline: Annotated[
        int | None, typer.Option(help="Seconds.", min=1, max=MAX_DEADLINE_SECONDS)
    ] = None,
    max_retries: Annotated[
        int | None, typer.Option(min=0, max=MAX_RETRIES, help="Retries after a failure.")
    ] = None,
    run_at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Not before: RFC 3339, or 30s, 15m, 2h, 7d from now."),
    ] = None,
    unique_key: Annotated[
        str | None, typer.Option(help="No second job of the type while one with this key is open.")
    ] = None,
    unique_while: Annotated[
        str | None, typer.Option(metavar="queued|open", help="How long the unique key counts.")
    ] = None,
    depends_on: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="A job to wait for; may be given several times."),
    ] = None,
    on_dependency_failure: Annotated[
        str | None,
        typer.Option(metavar="cancel|run", help="What then: default cancel."),
    ] = None,
    callback: Annotated[
        str | None, typer.Option(metavar="URL", help="Where to tell that the job has ended.")
    ] = None,
    callback_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="completed|failed|cancelled",
            help="Tell only of this end; may be given several times.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of the job.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.", min=1)] = 900,
    as_json: AsJson = False,
    url: Url = URL,
    token: Token = "",
) -> None:
    """Submit a job; prints its id. With --wait, exits 0 only if the job completed.

    Example: hybridjobs submit capture/repository.sync -p '{"owner": "octocat", "repo": "x"}'
    """
    options = {
        "key": key,
        "priority": priority,
        "deadlineSeconds": deadline,
        "maxRetries": max_retries,
        "runAt": ahead(run_at),
        "uniqueKey": unique_key,
        "uniqueWhile": unique_while,
        "dependsOn": depends_on or None,
        "onDependencyFailure": on_dependency_failure,
        "callback": _callback(callback, callback_on),
    }
    given = {name: codec.dumps(value) for name, value in options.items() if value is not None}
    # The payload goes in as it was written: parsing would round its numbers.
    body = {"type": codec.dumps(type_), "payload": _payload(payload), **given}
    content = "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in body.items()) + "}"
    with Api(url, token) as api:
        _, answer = api.request("POST", "/api/jobs", content=content)
        job = codec.loads(answer)
        if wait:
            # Whatever ends the wait, it is known for what.
            typer.echo(f"job {job['id']}", err=True)
            wait_for_job(api, job["id"], timeout, as_json=as_json)
        else:
            typer.echo(answer if as_json else job["id"])


def batch(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A job a line, as JSON; - for standard input.")
    ],
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same key gives the same batch.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of all jobs.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.", min=1)] = 900,
    as_json: AsJson = False,
    url: Url = URL,
    token: Token = "",
) -> None:
    """Submit up to 10,000 jobs at once, all or none; prints the batch's id.

    A line is a job as POST /api/jobs takes it. With "ref" it has a name in the batch, which the
    "dependsOn" of others may hold. With --wait, exits 0 only if every job completed.

    Example line: {"type": "report/nightly", "payload": {"day": "2026-11-24"}, "ref": "report"}
    """
    jobs = _lines(_read("-" if file == "-" else f"@{file}"))
    head = "" if key is None else f'"key":{codec.dumps(key)},'
    with Api(url, token) as api:
        _, answer = api.request(
            "POST",
            "/api/jobs:batch",
            content=f'{{{head}"jobs":[{",".join(jobs)}]}}',
            timeout_seconds=_BATCH_SECONDS,
        )
        made = codec.loads(answer)
        if wait:
            typer.echo(f"batch {made['id']}", err=True)
            wait_for_batch(api, made, timeout, as_json=as_json)
        else:
            typer.echo(answer if as_json else made["id"])


def _callback(url: str | None, events: list[str] | None) -> dict[str, object] | None:
    if url is None:
        if events:
            raise CommandError(Exit.USAGE, "--callback-on needs --callback")
        return None
    return {"url": url, "on": events} if events else {"url": url}


def _read(option: str) -> str:
    try:
        return sys.stdin.read() if option == "-" else Path(option[1:]).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(Exit.USAGE, f"cannot read {option.lstrip('@')}: {error}") from error


def _payload(option: str) -> str:
    text = _read(option) if option == "-" or option.startswith("@") else option
    try:
        codec.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(Exit.USAGE, f"the payload is not JSON: {error}") from error
    return text.strip()


def _lines(text: str) -> list[str]:
    lines = []
    # Not str.splitlines(): that knows more ends of lines, which JSON may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            codec.members(line)
        except (ValueError, RecursionError) as error:
            raise CommandError(Exit.USAGE, f"line {number} is no JSON object: {error}") from error
        lines.append(line)
    return lines
