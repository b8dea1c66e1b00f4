"""The same asked for each of several things: what is refused of one holds up no other."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from hybridjobs import codec
from hybridjobs.cli.api import Api
from hybridjobs.cli.exits import CommandError, Exit


def post_each(
    api: Api,
    ids: Sequence[str],
    path: str,
    *,
    content: str | None = None,
    done: Callable[[Any], str],
    as_json: bool,
) -> None:
    """POST to the path of each id, which stands in it as {}; a line a thing, or all as JSON.

    `done` says in words what an answer means. CommandError at the end if one was refused.
    """
    answers: list[str] = []
    refused: list[CommandError] = []
    try:
        for id_ in ids:
            try:
                _, answer = api.request("POST", path.format(id_), content=content)
            except CommandError as error:
                if error.code not in (Exit.FAILED, Exit.NOT_FOUND):
                    raise
                refused.append(error)
                sys.stderr.write(f"{id_}: {error}\n")
                continue
            answers.append(answer)
            if not as_json:
                typer.echo(f"{id_} {done(codec.loads(answer))}")
    finally:
        if as_json:
            typer.echo(f"[{','.join(answers)}]")
    if refused:
        raise CommandError(refused[0].code, f"accepted for {len(answers)} of {len(ids)}")
