"""docs/reference/cli.md names every command and option that there is, and no other."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from hybridjobs.cli.app import app

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "cli.md").read_text()
EVERYWHERE = {"--help", "--json", "--url", "--token"}


# typer has a click of its own, whose classes are not click's.
def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    members = getattr(command, "commands", None)
    if members is None:
        options = {option for each in command.params for option in each.opts}
        yield " ".join(path), {each for each in options if each.startswith("--")} - EVERYWHERE
        return
    for name, member in members.items():
        yield from _commands(member, (*path, name))


COMMANDS = dict(_commands(typer.main.get_command(app)))


def _documented() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {name: set() for name in COMMANDS}
    for line in PAGE.splitlines():
        for name in COMMANDS:
            if re.search(rf"`{name}[` ]", line.split(" | ")[0]):
                found[name] |= set(re.findall(r"--[a-z][a-z-]*", line))
    section = PAGE.partition("### `doctor`")[2].partition("## ")[0]
    found["doctor"] |= set(re.findall(r"--[a-z][a-z-]*", section))
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented(name: str) -> None:
    assert f"`{name}" in PAGE
    assert _documented()[name] - EVERYWHERE == COMMANDS[name]
