"""`hybridjobs token`: the API's tokens, by the database: there must be a way to the first one."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

import typer

from hybridjobs.cli.exits import CommandError, Exit
from hybridjobs.cli.options import AsJson, By, span
from hybridjobs.cli.output import print_table
from hybridjobs.errors import ConfigurationError
from hybridjobs.model import ApiScope

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.rows import DictRow

    from hybridjobs.store.tokens import ApiToken

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True, help="Make, list and revoke tokens of the API, by the database itself."
)

DatabaseUrl = Annotated[
    str,
    typer.Option(
        "--database-url", envvar="HYBRIDJOBS_DATABASE_URL", help="The services' database URL."
    ),
]
_YEARS = timedelta(days=10 * 366)
_NOBODY = "unknown"


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who will hold it; jobs say that they sent them.")],
    scope: Annotated[ApiScope, typer.Option(help="What it allows; each includes those before it.")],
    expires: Annotated[
        str, typer.Option(metavar="SPAN", help="Until then it is good: 12h, 90d, or never.")
    ] = "90d",
    by: By = None,
    as_json: AsJson = False,
    database_url: DatabaseUrl = "",
) -> None:
    """Make a token and print it. This once: it is kept as a hash.

    Example: kubectl exec deploy/hybridjobs-ingress -c ingress -- hybridjobs token create ci
    --scope submit
    """
    from hybridjobs.store.tokens import create_token

    lifetime = None if expires == "never" else _lifetime(expires)
    token, text = _run(
        database_url,
        lambda connection: create_token(
            connection, name, scope, lifetime=lifetime, by=by or _NOBODY
        ),
    )
    if as_json:
        typer.echo(json.dumps({**_document(token), "token": text}))
        return
    until = "never expires" if token.expires_at is None else f"expires {_shown(token.expires_at)}"
    typer.echo(f"token {token.id} of {token.name} may {token.scope} and {until}", err=True)
    typer.echo(text)


@app.command("list")
def list_(
    everything: Annotated[
        bool, typer.Option("--all", help="Those revoked and expired, too.")
    ] = False,
    as_json: AsJson = False,
    database_url: DatabaseUrl = "",
) -> None:
    """List the tokens: whose, what they allow, when they were used last (to within minutes)."""
    from hybridjobs.store.tokens import list_tokens

    tokens = _run(database_url, lambda connection: list_tokens(connection, ended=everything))
    if as_json:
        typer.echo(json.dumps({"tokens": [_document(token) for token in tokens]}))
        return
    print_table(
        ("ID", "NAME", "SCOPE", "TOKEN", "LAST USED", "EXPIRES", "MADE BY", "REVOKED"),
        (
            (
                token.id,
                token.name,
                token.scope,
                f"{token.hint}…",
                _shown(token.last_used_at),
                _shown(token.expires_at) or "never",
                token.created_by,
                _shown(token.revoked_at),
            )
            for token in tokens
        ),
    )


@app.command()
def revoke(
    ids: Annotated[list[UUID], typer.Argument(metavar="ID...", help="The tokens, as listed.")],
    by: By = None,
    database_url: DatabaseUrl = "",
) -> None:
    """Make tokens good for nothing, within seconds."""
    from hybridjobs.store.tokens import revoke_token

    async def revoke_all(connection: "AsyncConnection[DictRow]") -> list[UUID]:
        return [each for each in ids if not await revoke_token(connection, each, by=by or _NOBODY)]

    if missed := _run(database_url, revoke_all):
        names = ", ".join(map(str, missed))
        raise CommandError(Exit.NOT_FOUND, f"no such token, or revoked before: {names}")


def _run(url: str, work: Callable[["AsyncConnection[DictRow]"], Awaitable[T]]) -> T:
    from hybridjobs.store.database import Database

    async def run() -> T:
        async with Database(url, size=1) as database:
            await database.check_schema()
            async with database.connection() as connection:
                return await work(connection)

    if not url:
        raise ConfigurationError("set HYBRIDJOBS_DATABASE_URL or --database-url")
    return asyncio.run(run())


def _lifetime(text: str) -> timedelta:
    lifetime = span(text)
    if lifetime is None or not timedelta() < lifetime <= _YEARS:
        message = f"--expires {text}: give a span up to ten years, such as 12h or 90d, or never"
        raise CommandError(Exit.USAGE, message)
    return lifetime


def _document(token: "ApiToken") -> dict[str, Any]:
    return {
        "id": str(token.id),
        "name": token.name,
        "scope": token.scope.value,
        "hint": token.hint,
        "createdAt": token.created_at.isoformat(),
        "createdBy": token.created_by,
        "expiresAt": token.expires_at and token.expires_at.isoformat(),
        "lastUsedAt": token.last_used_at and token.last_used_at.isoformat(),
        "revokedAt": token.revoked_at and token.revoked_at.isoformat(),
        "revokedBy": token.revoked_by,
    }


def _shown(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%d %H:%M}Z"
