"""A job shown, and waited for."""

import time
from typing import Any

import typer

from hybridjobs import codec
from hybridjobs.cli.api import Api
from hybridjobs.cli.exits import CommandError, Exit
from hybridjobs.cli.output import console, print_facts, print_table, seconds, text
from hybridjobs.model import Status

_POLL_SECONDS = 0.5
_FACTS = (
    "id",
    "type",
    "status",
    "stage",
    "source",
    "key",
    "priority",
    "batchId",
    "schedule",
    "createdAt",
    "runAt",
    "startedAt",
    "error",
)


def wait_for_job(api: Api, job_id: str, timeout_seconds: float, *, as_json: bool) -> None:
    """Show progress until the job is over; CommandError unless it completed."""
    give_up = time.monotonic() + timeout_seconds
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
        show_job(job)
    if job["status"] != Status.COMPLETED:
        raise CommandError(Exit.FAILED, f"job {job_id} is {job['status']}: {job['error']}")


def show_job(job: dict[str, Any]) -> None:
    """Print a job with its attempts, their log tails if they are there, and its result."""
    facts = [(name, job.get(name)) for name in _FACTS]
    if job.get("durationMs") is not None:
        facts.append(("seconds", seconds(job["durationMs"])))
    if job.get("waitsFor"):
        facts.append(("waitsFor", ", ".join(job["waitsFor"])))
    if job.get("progress"):
        facts.append(("progress", _line(job)))
    print_facts(facts)
    print_table(
        ("ATTEMPT", "RUNNER", "OUTCOME", "REASON", "EXIT", "MESSAGE"),
        (
            (
                attempt["attempt"],
                attempt["runner"],
                attempt["outcome"] or "open",
                attempt["reason"],
                attempt["exitCode"],
                attempt["message"],
            )
            for attempt in job["attempts"]
        ),
    )
    for attempt in job["attempts"]:
        if attempt.get("logTail"):
            console().rule(f"log of attempt {attempt['attempt']}")
            console().print(text(attempt["logTail"]))
    if job.get("result") is not None:
        console().print_json(codec.dumps(job["result"]))


def _line(job: dict[str, Any]) -> str:
    progress = job.get("progress") or {}
    if not progress:
        return f"{job['status']}, attempt {job['attempt']}"
    total = f"/{progress['total']}" if progress.get("total") is not None else ""
    return f"{job['status']} {progress['done']}{total} {progress.get('message') or ''}".rstrip()
