"""Asks GitHub to deliver again what failed, as while the ingress was down; it never does so itself.

https://docs.github.com/en/webhooks/using-webhooks/handling-failed-webhook-deliveries. Several
processes may do this: each period one of them looks, and each delivery is asked for by one of them.
A delivery that comes in twice all the same is a replay.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

import structlog

from hybridjobs.errors import ConfigurationError, DatabaseUnavailable, Unavailable
from hybridjobs.ingress.github_hooks import MAX_PAGES, Hook, HookApi, HookDelivery
from hybridjobs.ingress.sources.github import SOURCE
from hybridjobs.settings import RedeliverySettings, comma_separated
from hybridjobs.store.database import Database
from hybridjobs.store.redeliveries import (
    Patience,
    alone,
    arrived,
    may_ask,
    put_off,
    seconds_until_due,
    take_due,
)

log = structlog.get_logger(__name__)

WINDOW = timedelta(days=3)  # GitHub delivers nothing older again
_FIRST_LOOK_SECONDS = 5.0  # by then the Service sends here
_LEAST_WAIT_SECONDS = 5.0  # while another process is at it
_MAX_ASKED = 500  # of a hook, a look
_MAX_LOOK_SECONDS = 900.0
_PAUSE_SECONDS = 1.0  # between requests that change something, as GitHub wants it
_MAX_REFUSED = 10  # of a hook, a look, before any is taken
# The first wait is less than the time between two looks.
_PATIENCE = Patience(timedelta(minutes=9), timedelta(hours=6), give_up=WINDOW)
_IMPATIENCE = Patience(timedelta(minutes=1), timedelta(minutes=1))


@dataclass(slots=True)
class Look:
    """What came of a look at one hook: `failed` deliveries; those `asked` for, and those of which
    GitHub `refused` that, by their GUIDs.

    `error` says what ended it early, `unavailable` that it may go on later.
    """

    hook: str
    failed: list[HookDelivery] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    error: str | None = None
    unavailable: bool = False


class Redelivery:
    """Looks at the hooks, now and then or once."""

    def __init__(
        self,
        settings: RedeliverySettings,
        database: Database,
        hooks: tuple[Hook, ...],
        *,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        self._settings = settings
        self._url = settings.database_url.get_secret_value()
        self._database = database
        self._hooks = hooks
        self._pause_seconds = pause_seconds
        self._api = HookApi(settings)

    @classmethod
    def configured(cls, settings: RedeliverySettings, database: Database) -> Self | None:
        """As the settings say; None: no hook is named. ConfigurationError: half of one."""
        hooks = configured_hooks(settings)
        return cls(settings, database, hooks) if hooks else None

    async def run(self) -> None:
        """Look every `github_redeliver_seconds`, until cancelled: one of all processes."""
        period = self._settings.github_redeliver_seconds
        wait = min(period, _FIRST_LOOK_SECONDS)
        try:
            while True:
                await asyncio.sleep(wait)
                wait = period
                try:
                    wait = await self._look_if_due()
                except DatabaseUnavailable as error:
                    log.warning("redelivery waits", error=error.detail)
        finally:
            await self.close()

    async def _look_if_due(self) -> float:
        """Look at the hooks whose time has come; the seconds until the next one's."""
        period = self._settings.github_redeliver_seconds
        paths = [hook.path for hook in self._hooks]
        async with alone(self._url) as held:
            if held:
                async with self._database.connection() as connection:
                    due = await take_due(connection, paths, timedelta(seconds=period))
                await self._looks([hook for hook in self._hooks if hook.path in due], _PATIENCE)
        async with self._database.connection() as connection:
            seconds = await seconds_until_due(connection, paths)
        return max(seconds, min(period, _LEAST_WAIT_SECONDS))

    async def look(self, *, now: bool = False, dry: bool = False) -> list[Look] | None:
        """Look at every hook, and ask for what failed and is due; None: another process is at it.

        A delivery that was asked for is so again only after a wait that doubles each time, for
        three days; `now`: after a minute, and however long ago. `dry`: nothing is asked for.
        """
        async with alone(self._url) as held:
            if not held:
                return None
            return await self._looks(self._hooks, _IMPATIENCE if now else _PATIENCE, dry=dry)

    async def _looks(
        self, hooks: Iterable[Hook], patience: Patience, *, dry: bool = False
    ) -> list[Look]:
        looks = []
        for hook in hooks:
            look = Look(hook.name)
            try:
                async with asyncio.timeout(_MAX_LOOK_SECONDS):
                    await self._look(hook, look, patience, dry)
            except TimeoutError:
                look.error, look.unavailable = "it takes too long; the next look goes on", True
            except DatabaseUnavailable:
                raise
            except Unavailable as error:
                look.error, look.unavailable = error.detail, True
                async with self._database.connection() as connection:
                    await put_off(connection, hook.path, timedelta(seconds=error.retry_after))
            except ConfigurationError as error:
                look.error = str(error)
            _log(look)
            looks.append(look)
        return looks

    async def close(self) -> None:
        """Close the connections to GitHub."""
        await self._api.close()

    async def _look(self, hook: Hook, look: Look, patience: Patience, dry: bool) -> None:
        found = await self._found(hook)
        async with self._database.connection() as connection:
            here = await arrived(connection, SOURCE, [each.guid for each in found])
        # What has its jobs arrived, though GitHub had stopped waiting for the answer.
        look.failed = [each for each in found if each.guid not in here]
        for delivery in look.failed if not dry else ():
            async with self._database.connection() as connection:
                due = await may_ask(connection, hook.path, delivery.guid, patience)
            if not due:
                continue
            if look.asked or look.refused:
                await asyncio.sleep(self._pause_seconds)
            taken = await self._api.redeliver(hook, delivery)
            (look.asked if taken else look.refused).append(delivery.guid)
            if len(look.refused) == _MAX_REFUSED and not look.asked:
                raise ConfigurationError(
                    f"GitHub delivers nothing of {hook.name} again: look at {hook.settings}"
                )
            if len(look.asked) == _MAX_ASKED:
                return

    async def _found(self, hook: Hook) -> list[HookDelivery]:
        since = datetime.now(UTC) - WINDOW
        deliveries: list[HookDelivery] = []
        pages = 0
        async for page in self._api.deliveries(hook):
            pages += 1
            deliveries += page
            if page and page[-1].delivered_at < since:
                break
        else:
            if pages == MAX_PAGES:
                log.warning("only the newest deliveries are looked at", hook=hook.name)
        return undelivered(deliveries, since)


def undelivered(deliveries: Iterable[HookDelivery], since: datetime) -> list[HookDelivery]:
    """The newest try of each event that no try has delivered, the oldest event first."""
    latest: dict[str, HookDelivery] = {}
    delivered: set[str] = set()
    for each in sorted(deliveries, key=lambda each: (each.delivered_at, each.id)):
        latest[each.guid] = each
        if each.succeeded:
            delivered.add(each.guid)
    return [
        each
        for guid, each in latest.items()
        if guid not in delivered and each.delivered_at >= since
    ]


def configured_hooks(settings: RedeliverySettings) -> tuple[Hook, ...]:
    """The App's hook, if there is one, and those named; ConfigurationError for half of either."""
    hooks: list[Hook] = []
    if (settings.github_app_id is None) != (settings.github_app_private_key is None):
        raise ConfigurationError(
            "HYBRIDJOBS_GITHUB_APP_ID and HYBRIDJOBS_GITHUB_APP_PRIVATE_KEY go together"
        )
    if settings.github_app_id is not None:
        hooks.append(Hook(f"app {settings.github_app_id}", "/app/hook"))
    names = comma_separated(settings.github_hooks)
    hooks += [Hook.parse(name) for name in dict.fromkeys(names)]
    if settings.github_hooks_token is None and any(not hook.is_app for hook in hooks):
        raise ConfigurationError(
            "HYBRIDJOBS_GITHUB_HOOKS needs HYBRIDJOBS_GITHUB_HOOKS_TOKEN, "
            "which may read and redeliver those hooks' deliveries"
        )
    return tuple(hooks)


def _log(look: Look) -> None:
    if look.error is not None:
        log.warning("redelivery ended early", hook=look.hook, error=look.error)
    if look.refused:
        log.warning("GitHub delivers some no more", hook=look.hook, deliveries=look.refused)
    if look.asked:
        log.info("asked GitHub to deliver again", hook=look.hook, deliveries=len(look.asked))
