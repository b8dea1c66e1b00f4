"""Options that several commands have, and how they are read."""

import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from hybridjobs.cli.exits import CommandError, Exit

URL = "http://127.0.0.1:8081"

Url = Annotated[str, typer.Option("--url", envvar="HYBRIDJOBS_API_URL", help="The API's address.")]
Token = Annotated[
    str,
    typer.Option(
        "--token",
        envvar="HYBRIDJOBS_API_TOKEN",
        help="The API's bearer token, or @FILE with it.",
        show_envvar=True,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the API gives it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
By = Annotated[
    str | None,
    typer.Option("--by", envvar=["HYBRIDJOBS_USER", "USER"], help="Who does this, for the record."),
]
Type = Annotated[str | None, typer.Option("--type", help="Only of this job type.")]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Not before: RFC 3339, or 30s, 15m, 2h, 7d ago."),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Before: as --since.")]
Before = Annotated[
    str | None, typer.Option(metavar="ID", help="The next page: the id that a page ended with.")
]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")]

_SPAN = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def ago(option: str | None) -> str | None:
    """The time that an option names: a span is before now, anything else the API's to read."""
    return _moment(option, -1)


def ahead(option: str | None) -> str | None:
    """The time that an option names: a span is after now, anything else the API's to read."""
    return _moment(option, 1)


def query_of(**options: str | int | None) -> dict[str, str | int]:
    """The parameters that are given."""
    return {name: value for name, value in options.items() if value is not None}


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless `yes`; CommandError where the answer is no, or nobody is there to answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(Exit.USAGE, f"{question} Say --yes.")
    if not typer.confirm(question):
        raise CommandError(Exit.FAILED, "nothing was done")


def span(option: str) -> timedelta | None:
    """The span that an option names, such as 15m; None where it is none."""
    found = _SPAN.fullmatch(option)
    return None if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})


def _moment(option: str | None, direction: int) -> str | None:
    if option is None or (distance := span(option)) is None:
        return option
    try:
        return (datetime.now(UTC) + direction * distance).isoformat()
    except OverflowError:
        raise CommandError(Exit.USAGE, f"{option} is longer than the calendar") from None
