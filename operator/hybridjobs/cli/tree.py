"""A job shown with all that descends from it."""

from collections.abc import Iterable, Mapping
from typing import Any

import typer
from rich.text import Text
from rich.tree import Tree

from hybridjobs import codec
from hybridjobs.cli.api import Api
from hybridjobs.cli.options import query_of
from hybridjobs.cli.output import console, text
from hybridjobs.cli.waiting import progress_of
from hybridjobs.model import Status

_LIMIT = 1000
_STYLES = {
    Status.QUEUED: "dim",
    Status.PROCESSING: "blue",
    Status.COMPLETED: "green",
    Status.FAILED: "red",
    Status.CANCELLED: "yellow",
}


def show_tree(api: Api, job_id: str, *, depth: int, width: int, as_json: bool) -> None:
    """Print the job and its descendants: `depth` levels of them, `width` children of each job."""
    query = query_of(depth=depth, width=width, limit=_LIMIT)
    _, answer = api.request("GET", f"/api/jobs/{job_id}/tree", query=query)
    if as_json:
        typer.echo(answer)
        return
    found = codec.loads(answer)
    console().print(_tree(found["jobs"], depth))
    if not found["complete"]:
        typer.echo("there are more than are counted", err=True)


def _tree(jobs: Iterable[Mapping[str, Any]], depth: int) -> Tree:
    """Of lines that come level by level; what is left out is said under its parent."""
    first, *others = jobs
    branches = {first["id"]: Tree(_label(first))}
    shown: dict[str, int] = {}
    for job in others:
        branches[job["id"]] = branches[job["parentId"]].add(_label(job))
        shown[job["parentId"]] = shown.get(job["parentId"], 0) + 1
    for job in (first, *others):
        hidden = job["children"] - shown.get(job["id"], 0)
        if hidden and (job["depth"] < depth or job["id"] == first["id"]):
            branches[job["id"]].add(Text(f"… {hidden} more", style="dim"))
    return branches[first["id"]]


def _label(job: Mapping[str, Any]) -> Text:
    status = Status(job["status"])
    label = Text.assemble(text(job["type"]), " ", (status.value, _STYLES[status]))
    if job["stage"] not in (None, "ready"):
        label.append(f" ({job['stage']})")
    if job["progress"] and not status.is_terminal:
        label.append(" ").append(text(progress_of(job["progress"])))
    if job["counts"]:
        label.append(f"  [{_counts(job['counts'])}]", style="bold")
    label.append(f"  {job['id']}", style="dim")
    if job["error"]:
        label.append("  ").append(text(job["error"].splitlines()[0][:120]))
    return label


def _counts(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    each = ", ".join(f"{counts[status]} {status}" for status in Status if counts.get(status))
    return f"{total}: {each}"
