"""A job shown, and waited for."""

import sys
import time
from typing import Any

import typer

from hybridjobs import codec
from hybridjobs.cli.api import Api
from hybridjobs.cli.exits import CommandError, Exit
from hybridjobs.cli.output import console, print_facts, print_table, seconds, text
from hybridjobs.model import Status

_POLL_SECONDS = 1.0
_OVERLAP = 1000
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
    until = time.monotonic() + timeout_seconds
    shown = status = ""
    for seen in api.follow(f"/api/jobs/{job_id}/events", until=until):
        status = seen["status"]
        if Status(status).is_terminal:
            break
        if (line := _line(seen)) != shown:
            typer.echo(line, err=True)
            shown = line
    else:
        raise CommandError(Exit.TIMEOUT, f"job {job_id} is still {status or 'not known'}")
    _, answer = api.request("GET", f"/api/jobs/{job_id}")
    job = codec.loads(answer)
    if as_json:
        typer.echo(answer)
    else:
        show_job(job)
    if job["status"] != Status.COMPLETED:
        raise CommandError(Exit.FAILED, f"job {job_id} is {job['status']}: {job['error']}")


def follow_log(api: Api, job_id: str) -> None:
    """Print what a job logs until it is over; a line between its attempts."""
    last, shown, over = "", "", False
    while not over:
        # First whether it is over, so that all it logged is there when the log is read.
        over = Status(
            codec.loads(api.request("GET", f"/api/jobs/{job_id}")[1])["status"]
        ).is_terminal
        attempt, log = api.log(job_id, None)
        if attempt != last:
            if last:
                typer.echo(f"attempt {attempt}", err=True)
            last, shown = attempt, ""
        print_log(_added(shown, log))
        shown = log
        if not over:
            time.sleep(_POLL_SECONDS)


def print_log(log: str) -> None:
    """A log as it is, but for what a terminal would act on."""
    sys.stdout.write(text(log).plain)
    sys.stdout.flush()


def _added(shown: str, log: str) -> str:
    """What the log has after what was shown; of long ones the API has the last part alone."""
    if log.startswith(shown):
        return log[len(shown) :]
    _, found, added = log.partition(shown[-_OVERLAP:])
    return added if found else log


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
