"""Inngest's parts of the ingress, put together."""

from collections.abc import Awaitable, Callable

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
    """What works with the SDK, which has been entered and is left after it."""

    def __init__(self, config: InngestConfig, sdk: Sdk) -> None:
        self._config = config
        self._sdk = sdk

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
