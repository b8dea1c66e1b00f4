"""Inngest is told of the functions at the start, and whenever they change."""

import asyncio

import structlog

from hybridjobs.ingress.inngest.app import InngestApp, SyncRefused
from hybridjobs.store.types import TypeCatalog

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 1.0
_MAX_BACKOFF_SECONDS = 300.0


async def register(app: InngestApp, catalog: TypeCatalog, *, sync: bool) -> None:
    """Have the app follow the catalog until cancelled, and, with `sync`, Inngest the app.

    Several replicas tell the same, which changes nothing.
    """
    clock = asyncio.get_running_loop().time
    known, failures, next_try = 0, 0, 0.0
    while True:
        await app.follow(catalog.all())
        if sync and app.version != known and clock() >= next_try:
            version = app.version
            try:
                await app.sync()
            except SyncRefused as error:
                failures += 1
                next_try = clock() + min(_MAX_BACKOFF_SECONDS, 2.0**failures)
                log.warning("not registered with Inngest", error=str(error), failures=failures)
            else:
                known, failures = version, 0
                log.info("registered with Inngest", version=version)
        await asyncio.sleep(_LOOK_SECONDS)
