"""What the command line asks of GitHub."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from hybridjobs.cli.exits import CommandError, Exit
from hybridjobs.errors import ConfigurationError
from hybridjobs.settings import RedeliverySettings

if TYPE_CHECKING:
    from hybridjobs.ingress.redelivery import Look


def github_redeliver(
    now: Annotated[
        bool, typer.Option("--now", help="Also what was asked for more than a minute ago.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what failed, ask for nothing.")
    ] = False,
) -> None:
    """Ask GitHub to deliver again what failed in the last 3 days, as while the ingress was down.

    The ingress does the same by itself every 10 minutes; both may run at once, and several times.
    Reads HYBRIDJOBS_DATABASE_URL, HYBRIDJOBS_GITHUB_APP_ID and HYBRIDJOBS_GITHUB_APP_PRIVATE_KEY,
    HYBRIDJOBS_GITHUB_HOOKS and HYBRIDJOBS_GITHUB_HOOKS_TOKEN.
    """
    looks = asyncio.run(_look(RedeliverySettings.load(), now=now, dry=dry_run))
    if looks is None:
        typer.echo("another process is at it")
        return
    for look in looks:
        typer.echo(f"{look.hook}: {len(look.failed)} failed, {len(look.asked)} asked for again")
        notes = dict.fromkeys(look.asked, "asked for") | dict.fromkeys(look.refused, "refused")
        for delivery in look.failed:
            note = notes.get(delivery.guid, "left alone")
            moment = delivery.delivered_at.isoformat(timespec="seconds")
            typer.echo(f"  {delivery.guid}  {delivery.event}  {moment}  {note}")
    errors = [f"{look.hook}: {look.error}" for look in looks if look.error is not None]
    if errors:
        is_away = all(look.unavailable for look in looks if look.error is not None)
        raise CommandError(Exit.UNAVAILABLE if is_away else Exit.USAGE, "; ".join(errors))


async def _look(settings: RedeliverySettings, *, now: bool, dry: bool) -> "list[Look] | None":
    from hybridjobs.ingress.redelivery import Redelivery
    from hybridjobs.store.database import Database

    async with Database(settings.database_url.get_secret_value(), size=1) as database:
        await database.check_schema()
        redelivery = Redelivery.configured(settings, database)
        if redelivery is None:
            raise ConfigurationError(
                "no hook is named: set HYBRIDJOBS_GITHUB_APP_ID and "
                "HYBRIDJOBS_GITHUB_APP_PRIVATE_KEY, or HYBRIDJOBS_GITHUB_HOOKS and "
                "HYBRIDJOBS_GITHUB_HOOKS_TOKEN"
            )
        try:
            return await redelivery.look(now=now, dry=dry)
        finally:
            await redelivery.close()
