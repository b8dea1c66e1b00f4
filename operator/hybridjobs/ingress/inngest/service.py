"""Inngest's parts of the ingress, put together."""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import structlog

from hybridjobs.ingress.inngest.app import InngestApp
from hybridjobs.ingress.inngest.config import InngestConfig
from hybridjobs.ingress.inngest.endpoint import InngestEndpoint
from hybridjobs.ingress.inngest.notifier import Notifier
from hybridjobs.ingress.inngest.registration import register
from hybridjobs.ingress.inngest.runs import Runs
from hybridjobs.ingress.inngest.sdk import Sdk
from hybridjobs.ingress.intake import Intake
from hybridjobs.store.database import Database
from hybridjobs.store.types import TypeCatalog

log = structlog.get_logger(__name__)

AddPart = Callable[[str, Callable[[], Awaitable[None]]], None]


class InngestService:
    """The SDK at hand from entering to leaving: longer than the parts that use it."""

    def __init__(self, config: InngestConfig) -> None:
        self._config = config
        self._sdk = Sdk(config)

    async def __aenter__(self) -> Self:
        await self._sdk.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._sdk.__aexit__(kind, error, trace)

    def start(
        self, add: AddPart, catalog: TypeCatalog, intake: Intake, database: Database
    ) -> InngestEndpoint:
        """The endpoint. Hands the parts to `add` that must run with it."""
        config = self._config
        if config.dev:
            log.warning("Inngest's development mode: nothing at /api/inngest is verified")
        app = InngestApp(self._sdk, config, Runs(catalog, intake, database))
        sync = config.dev or config.serve_origin is not None
        add("inngest functions", lambda: register(app, catalog, sync=sync))
        if config.can_send:
            add("inngest events", Notifier(database, self._sdk.send).run)
        else:
            log.warning(
                "without HYBRIDJOBS_INNGEST_EVENT_KEY a run learns of its job's end"
                " only when its wait has timed out"
            )
        return InngestEndpoint(config, app, catalog, intake)
