"""How commands print: tables for people, whole lines for pipes."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPE_COLUMNS = 2000  # nothing is wrapped or cut that a program reads


def console() -> Console:
    """Standard output."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; None is an empty cell."""
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(text(cell) for cell in row))
    console().print(table)


def print_page(
    page: Mapping[str, Any],
    member: str,
    columns: Sequence[str],
    cells: Callable[[Mapping[str, Any]], Sequence[object]],
) -> None:
    """A page of the API: its `member` as a table, and how to ask for what comes after."""
    print_table(columns, map(cells, page[member]))
    if page["next"]:
        typer.echo(f"there are more: --before {page['next']}", err=True)


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values, those left out whose value is None."""
    grid = Table.grid(padding=(0, 2))
    for name, value in facts:
        if value is not None:
            grid.add_row(Text(name, style="bold"), text(value))
    console().print(grid)


def text(value: object) -> Text:
    """The value as it is: neither markup nor what a terminal would act on."""
    if value is None:
        return Text("")
    shown = "".join(each if each.isprintable() or each in "\n\t" else "�" for each in str(value))
    return Text(shown)


def seconds(milliseconds: float | None) -> str:
    """A duration."""
    return "" if milliseconds is None else f"{milliseconds / 1000:.1f}"
