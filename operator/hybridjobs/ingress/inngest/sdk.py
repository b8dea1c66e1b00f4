"""The official SDK, in a thread with a loop of its own.

It brings every body into canonical form in plain Python, which takes it a quarter of a second for
400 KiB of small values; in the ingress' loop every other request would wait for that.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import inngest

from hybridjobs.errors import HybridJobsError
from hybridjobs.ingress.inngest.config import InngestConfig

Value = TypeVar("Value")

_REQUEST_MS = 10_000
_SEND_SECONDS = 60  # for all that the SDK tries, also where an answer drips
# The one way to give the client its fallback key; read when it is made.
_FALLBACK = "INNGEST_SIGNING_KEY_FALLBACK"


class EventRefused(HybridJobsError):  # noqa: N818 - named for what Inngest did
    """Inngest's answer does not say that it took an event."""


class Sdk:
    """The SDK's client and its thread, from entering to leaving."""

    client: inngest.Inngest

    def __init__(self, config: InngestConfig) -> None:
        self._config = config
        self._ours = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="inngest", daemon=True)

    async def __aenter__(self) -> Self:
        self._thread.start()
        self.client = await self.there(self._new_client())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.there(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)

    async def there(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Run a coroutine in the SDK's loop, called from the ingress'."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def here(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Run a coroutine in the ingress' loop, called from the SDK's."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._ours))

    async def send(self, name: str, data: dict[str, Any], *, event_id: str) -> None:
        """Send an event; any exception, most of them the SDK's: Inngest may not have it."""

        async def send() -> None:
            async with asyncio.timeout(_SEND_SECONDS):
                ids = await self.client.send(inngest.Event(name=name, data=data, id=event_id))
            if not ids:
                # The SDK looks at no status: an error of a proxy's is none to it.
                raise EventRefused("the answer names no event")

        await self.there(send())

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def _new_client(self) -> inngest.Inngest:
        config = self._config
        os.environ.pop(_FALLBACK, None)
        if config.fallback_key is not None:
            os.environ[_FALLBACK] = config.fallback_key
        try:
            return inngest.Inngest(
                app_id=config.app_id,
                api_base_url=config.api_url,
                event_api_base_url=config.event_url,
                event_key=config.event_key,
                signing_key=config.signing_key,
                is_production=not config.dev,
                logger=logging.getLogger("inngest"),
                request_timeout=_REQUEST_MS,
            )
        finally:
            os.environ.pop(_FALLBACK, None)


async def _cancel_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
