"""Commands on jobs, through the API."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from hybridjobs import codec
from hybridjobs.cli.api import Api
from hybridjobs.cli.exits import CommandError, Exit
from hybridjobs.model import Status

Url = Annotated[str, typer.Option("--url", envvar="HYBRIDJOBS_API_URL", help="The API's address.")]
Token = Annotated[
    str,
    typer.Option(
        "--token", envvar="HYBRIDJOBS_API_TOKEN", help="The API's bearer token.", show_envvar=True
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the API gives it.")]
_URL = "http://127.0.0.1:8081"
_POLL_SECONDS = 0.5


def submit(
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="The job type.")],
    payload: Annotated[
        str,
        typer.Option("--payload", "-p", help="JSON, @FILE, or - for standard input."),
    ] = "{}",
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same key gives the same job.")
    ] = None,
    priority: Annotated[int | None, typer.Option(min=-100, max=100)] = None,
    deadline: Annotated[int | None, typer.Option(help="Seconds.", min=1, max=86400)] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of the job.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.", min=1)] = 900,
    as_json: AsJson = False,
    url: Url = _URL,
    token: Token = "",
) -> None:
    """Submit a job; prints its id. With --wait, exits 0 only if the job completed.

    Example: hybridjobs submit capture/repository.sync -p '{"owner": "octocat", "repo": "x"}'
    """
    text = _payload(payload)
    options = {"key": key, "priority": priority, "deadlineSeconds": deadline}
    given = {name: codec.dumps(value) for name, value in options.items() if value is not None}
    # The payload goes in as it was written: parsing would round its numbers.
    body = {"type": codec.dumps(type_), "payload": text, **given}
    content = "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in body.items()) + "}"
    with Api(url, token) as api:
        _, answer = api.request("POST", "/api/jobs", content=content)
        job = codec.loads(answer)
        if not wait:
            typer.echo(answer if as_json else job["id"])
            return
        _wait(api, job["id"], timeout, as_json=as_json)


def get(
    job_id: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of the job.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.", min=1)] = 900,
    logs: Annotated[
        bool, typer.Option("--logs", help="Show the log tail of each attempt.")
    ] = False,
    as_json: AsJson = False,
    url: Url = _URL,
    token: Token = "",
) -> None:
    """Show a job: its state, progress, result and every attempt."""
    with Api(url, token) as api:
        if wait:
            _wait(api, job_id, timeout, as_json=as_json)
            return
        query: dict[str, str | int] = {"logs": "true"} if logs else {}
        _, answer = api.request("GET", f"/api/jobs/{job_id}", query=query)
    if as_json:
        typer.echo(answer)
    else:
        _show(codec.loads(answer))


def list_(
    status: Annotated[Status | None, typer.Option(help="Only jobs in this state.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only jobs of this type.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: AsJson = False,
    url: Url = _URL,
    token: Token = "",
) -> None:
    """List jobs, the newest first."""
    query: dict[str, str | int] = {"limit": limit}
    if status is not None:
        query["status"] = status.value
    if type_ is not None:
        query["type"] = type_
    with Api(url, token) as api:
        _, answer = api.request("GET", "/api/jobs", query=query)
    if as_json:
        typer.echo(answer)
        return
    table = Table("ID", "TYPE", "STATUS", "ATTEMPT", "CREATED", "SECONDS", "REASON", box=None)
    for job in codec.loads(answer)["jobs"]:
        table.add_row(
            job["id"],
            job["type"],
            job["status"],
            str(job["attempt"]),
            job["createdAt"],
            _seconds(job["durationMs"]),
            job["outcomeReason"] or "",
        )
    Console().print(table)


def _payload(option: str) -> str:
    if option == "-":
        text = sys.stdin.read()
    elif option.startswith("@"):
        try:
            text = Path(option[1:]).read_text()
        except OSError as error:
            raise CommandError(Exit.USAGE, f"cannot read the payload: {error}") from error
    else:
        text = option
    try:
        codec.loads(text)
    except ValueError as error:
        raise CommandError(Exit.USAGE, f"the payload is not JSON: {error}") from error
    return text.strip()


def _wait(api: Api, job_id: str, timeout: float, *, as_json: bool) -> None:
    """Show progress until the job is over; CommandError unless it completed."""
    give_up = time.monotonic() + timeout
    shown = ""
    while True:
        _, answer = api.request("GET", f"/api/jobs/{job_id}")
        job = codec.loads(answer)
        if Status(job["status"]).is_terminal:
            break
        if (line := _line(job)) != shown:
            typer.echo(line, err=True)
            shown = line
        if time.monotonic() >= give_up:
            raise CommandError(Exit.TIMEOUT, f"job {job_id} is still {job['status']}")
        time.sleep(_POLL_SECONDS)
    if as_json:
        typer.echo(answer)
    else:
        _show(job)
    if job["status"] != Status.COMPLETED:
        raise CommandError(Exit.FAILED, f"job {job_id} is {job['status']}: {job['error']}")


def _line(job: dict[str, Any]) -> str:
    progress = job.get("progress") or {}
    if not progress:
        return f"{job['status']}, attempt {job['attempt']}"
    total = f"/{progress['total']}" if progress.get("total") is not None else ""
    return f"{job['status']} {progress['done']}{total} {progress.get('message') or ''}".rstrip()


def _show(job: dict[str, Any]) -> None:
    console = Console()
    facts = Table.grid(padding=(0, 2))
    for name in ("id", "type", "status", "source", "key", "createdAt", "startedAt", "error"):
        if job.get(name) is not None:
            facts.add_row(f"[bold]{name}[/bold]", str(job[name]))
    if job.get("durationMs") is not None:
        facts.add_row("[bold]seconds[/bold]", _seconds(job["durationMs"]))
    if job.get("progress"):
        facts.add_row("[bold]progress[/bold]", _line(job))
    console.print(facts)
    table = Table("ATTEMPT", "RUNNER", "OUTCOME", "REASON", "EXIT", "MESSAGE", box=None)
    for attempt in job.get("attempts", []):
        table.add_row(
            str(attempt["attempt"]),
            attempt["runner"],
            attempt["outcome"] or "open",
            attempt["reason"] or "",
            "" if attempt["exitCode"] is None else str(attempt["exitCode"]),
            attempt["message"] or "",
        )
    console.print(table)
    for attempt in job.get("attempts", []):
        if attempt.get("logTail"):
            console.rule(f"log of attempt {attempt['attempt']}")
            console.print(attempt["logTail"], markup=False, highlight=False)
    if job.get("result") is not None:
        console.print_json(codec.dumps(job["result"]))


def _seconds(milliseconds: int | None) -> str:
    return "" if milliseconds is None else f"{milliseconds / 1000:.1f}"
