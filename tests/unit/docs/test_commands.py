"""Every command of ours in the documentation is one that there is, with options that it takes."""

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer.main

from hybridjobs.cli.app import app
from tests.unit.docs.pages import PAGES, ROOT, commands, examples, inline, name_of

_ID = "01a20b6b-59ce-70c4-919b-be41339fc912"
# Where a command begins, so that a release or namespace of that name is none.
_BEGIN = re.compile(r"(?:^|[|&;] |-- )hybridjobs(?= |$)")


def _shown() -> Iterator[tuple[str, str]]:
    """Pages, and the commands of their examples, up to what a shell makes of the rest."""
    for example in examples("", "sh", "console"):
        for line in commands(example.text):
            for begin in _BEGIN.finditer(line):
                yield example.page, line[begin.end() :].strip()


def _mentioned() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for text in inline(page):
            for begin in _BEGIN.finditer(text):
                if command := text[begin.end() :].strip():  # else a namespace
                    yield name_of(page), command


def _words(command: str) -> list[str]:
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("|&;<>"):
            break
        words.append(_ID if word in ("ID", "ID...") else word)
    return words


def _check(words: list[str], *, whole: bool) -> None:
    """Let every command on the way parse its part; none is run. Not `whole`: some may lack."""
    command: Any = typer.main.get_command(app)
    parent = None
    while True:
        try:
            context = command.make_context(command.name, list(words), parent=parent)
        except Exception as error:
            # Of typer's own click, which cannot be imported from a public place.
            if not whole and type(error).__name__ in ("MissingParameter", "NoArgsIsHelpError"):
                return
            raise
        members = getattr(command, "commands", None)
        if members is None:
            return
        rest: list[str] = [*context._protected_args, *context.args]
        name, words = rest[0], rest[1:]
        assert name in members, f"there is no command {name}"
        command, parent = members[name], context


@pytest.mark.parametrize(("page", "command"), sorted(set(_shown())))
def test_a_command_of_an_example_is_taken(page: str, command: str) -> None:
    _check(_words(command), whole=True)


@pytest.mark.parametrize(("page", "command"), sorted(set(_mentioned())))
def test_a_command_that_is_mentioned_is_there(page: str, command: str) -> None:
    words = _words(command)
    if words and words[0].isupper():  # `hybridjobs COMMAND --help`
        return
    _check(words, whole=False)


def test_examples_are_found() -> None:
    assert len(set(_shown())) > 30
    assert len(set(_mentioned())) > 15


def _code(page: Path) -> list[str]:
    return [
        *inline(page),
        *(each.text for each in examples("", "sh") if each.page == name_of(page)),
    ]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_targets_of_make_and_modules_that_are_run_are_there(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    targets = {target for line in phony for target in line.split()}
    for text in _code(page):
        assert set(re.findall(r"(?:^|\n)make ([a-z-]+)", text)) <= targets, text
        for module in re.findall(r"python -m (tests[\w.]*)", text):
            assert find_spec(module), module
