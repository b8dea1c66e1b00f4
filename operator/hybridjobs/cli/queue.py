"""Commands on the queue as a whole: its types, its switches, its schedules, its figures."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from hybridjobs import codec
from hybridjobs.cli.api import Api
from hybridjobs.cli.exits import CommandError, Exit
from hybridjobs.cli.options import URL, AsJson, By, Token, Url, query_of
from hybridjobs.cli.output import console, print_facts, print_table, seconds, text

TypeOrNone = Annotated[str | None, typer.Argument(metavar="TYPE", help="The job type.")]
All = Annotated[bool, typer.Option("--all", help="Every type: the whole queue.")]


def types(as_json: AsJson = False, url: Url = URL, token: Token = "") -> None:
    """List the job types: what starts them, what waits and runs, what is paused."""
    with Api(url, token) as api:
        _, answer = api.request("GET", "/api/types")
    _show_types(answer, as_json=as_json)


def pause(
    type_: TypeOrNone = None,
    everything: All = False,
    by: By = None,
    as_json: AsJson = False,
    url: Url = URL,
    token: Token = "",
) -> None:
    """Start no more jobs of a type, or of any with --all. What runs goes on; nothing is lost."""
    path = f"{_path(type_, everything)}/pause"
    with Api(url, token) as api:
        _, answer = api.request("POST", path, content=codec.dumps(query_of(by=by)))
    _show_types(answer, as_json=as_json)


def resume(
    type_: TypeOrNone = None,
    everything: All = False,
    as_json: AsJson = False,
    url: Url = URL,
    token: Token = "",
) -> None:
    """Start jobs again, of a type, or with --all of every type that is not paused itself."""
    with Api(url, token) as api:
        _, answer = api.request("POST", f"{_path(type_, everything)}/resume")
    _show_types(answer, as_json=as_json)


def schedules(as_json: AsJson = False, url: Url = URL, token: Token = "") -> None:
    """List the schedules that have fired: their last tick, what came of it, their open jobs."""
    with Api(url, token) as api:
        _, answer = api.request("GET", "/api/schedules")
    if as_json:
        typer.echo(answer)
        return
    print_table(
        ("NAME", "LAST TICK", "DECISION", "JOB", "OPEN"),
        (
            [schedule[name] for name in ("name", "tickAt", "decision", "jobId", "openJobs")]
            for schedule in codec.loads(answer)["schedules"]
        ),
    )


def stats(as_json: AsJson = False, url: Url = URL, token: Token = "") -> None:
    """Show how the queue is, the last day, each type's last week, and types in the wrong mode."""
    with Api(url, token) as api:
        _, answer = api.request("GET", "/api/statistics")
    if as_json:
        typer.echo(answer)
        return
    found = codec.loads(answer)
    health = found["health"]
    print_facts(
        [
            ("health", health["status"]),
            *((line["metric"], line["value"]) for line in found["summary"]),
        ]
    )
    for line in (*health["errors"], *health["warnings"]):
        console().print(text(f"! {line}"))
    print_table(
        ("TYPE", "JOBS", "FAILED", "SUCCESS %", "MEDIAN S", "P95 S", "MAX S"),
        (
            (
                line["type"],
                line["totalJobs"],
                line["failed"],
                line["successRatePercent"],
                seconds(line["medianDurationMs"]),
                seconds(line["p95DurationMs"]),
                seconds(line["maxDurationMs"]),
            )
            for line in found["types"]
        ),
    )
    for line in found["misplaced"]:
        console().print(text(_advice(line)))
    for line in found["stuck"]:
        console().print(text(f"stuck: {line['id']} {line['type']}: {line['reason']}"))


def _path(type_: str | None, everything: bool) -> str:
    if (type_ is not None) == everything:
        raise CommandError(Exit.USAGE, "name a type, or say --all")
    return "/api/queue" if type_ is None else f"/api/types/{quote(type_)}"


def _show_types(answer: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(answer)
        return
    found = codec.loads(answer)
    print_table(
        ("TYPE", "MODE", "WAITING", "RUNNING", "PAUSED BY", "EVENTS"),
        (
            (
                each["type"],
                each["mode"],
                each["waiting"],
                each["running"],
                (each["pausedBy"] or "?") if each["paused"] else None,
                ", ".join(each["events"]),
            )
            for each in found["types"]
        ),
    )
    if found["queue"]["paused"]:
        typer.echo(f"the queue is paused by {found['queue']['pausedBy']}: resume --all", err=True)


def _advice(line: dict[str, Any]) -> str:
    if line["mode"] == "quick":
        why = f"{line['overBudgetPercent']} % of {line['runs']} runs went over"
        return f"{line['type']} should be long: {why} its budget of {line['budgetSeconds']:g} s"
    why = f"95 % of {line['runs']} runs took at most {line['p95Seconds']} s"
    return f"{line['type']} could be quick: {why}"
