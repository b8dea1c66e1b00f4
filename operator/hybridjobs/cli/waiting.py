"""A job shown, and jobs and batches waited for."""

import sys
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import typer

from hybridjobs import codec
from hybridjobs.cli.api import Api
from hybridjobs.cli.exits import CommandError, Exit
from hybridjobs.cli.output import console, print_facts, print_table, seconds, text
from hybridjobs.client import Batch, Client
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
    shown = status = ""

    async def show(client: Client) -> None:
        nonlocal shown, status
        async for seen in client.follow(_id(job_id)):
            status = seen.status
            if not status.is_terminal and (line := _line(seen.document)) != shown:
                typer.echo(line, err=True)
                shown = line

    try:
        api.follow(show, timeout_seconds=timeout_seconds)
    except TimeoutError:
        message = f"job {job_id} is still {status or 'not known'}"
        raise CommandError(Exit.TIMEOUT, message) from None
    _, answer = api.request("GET", f"/api/jobs/{job_id}")
    job = codec.loads(answer)
    if as_json:
        typer.echo(answer)
    else:
        show_job(job)
    if job["status"] != Status.COMPLETED:
        why = f": {job['error']}" if job["error"] else ""
        raise CommandError(Exit.FAILED, f"job {job_id} is {job['status']}{why}")


def wait_for_batch(
    api: Api, batch: Mapping[str, Any], timeout_seconds: float, *, as_json: bool
) -> None:
    """Show the counts until every job is over; CommandError unless all completed."""
    id_, total = batch["id"], batch["total"]

    async def show(client: Client) -> None:
        async for counts in Batch(client, UUID(id_), total).follow():
            if any(jobs for status, jobs in counts.items() if not status.is_terminal):
                typer.echo(_counts(total, counts), err=True)

    try:
        api.follow(show, timeout_seconds=timeout_seconds)
    except TimeoutError:
        raise CommandError(Exit.TIMEOUT, f"batch {id_} is not finished") from None
    _, answer = api.request("GET", f"/api/batches/{id_}")
    counts = codec.loads(answer)["counts"]
    typer.echo(answer if as_json else _counts(total, counts))
    if counts[Status.FAILED] or counts[Status.CANCELLED]:
        raise CommandError(Exit.FAILED, f"not every job of batch {id_} completed")


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


def _line(job: Mapping[str, Any]) -> str:
    progress = job.get("progress") or {}
    if not progress:
        return f"{job['status']}, attempt {job['attempt']}"
    return f"{job['status']} {progress_of(progress)}"


def progress_of(progress: Mapping[str, Any]) -> str:
    """How far a job has come: done, of how much if that is known, its message."""
    total = f"/{progress['total']}" if progress.get("total") is not None else ""
    return f"{progress['done']}{total} {progress.get('message') or ''}".rstrip()


def _counts(total: int, found: Mapping[Any, int]) -> str:
    counts = ", ".join(f"{jobs} {status}" for status, jobs in found.items() if jobs)
    return f"{total} jobs: {counts or 'none is kept'}"


def _id(text_: str) -> UUID:
    try:
        return UUID(text_)
    except ValueError:
        raise CommandError(Exit.NOT_FOUND, f"there is no job {text_}") from None
