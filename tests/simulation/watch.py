"""What the API server has to tell the processes that watch it."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from hybridjobs.controller.watch import EventHandler
from hybridjobs.kube.client import HYBRIDJOB_TYPES, Resource
from tests.simulation.cluster import WATCHED, ApiServer, Object
from tests.simulation.virtual import at_once


class Watch:
    """Tells of each object in order, and of several in any order.

    As kopf tells it: of several events of one object perhaps only the last; after an interruption
    everything there is, and nothing of what is gone.
    """

    def __init__(
        self,
        server: ApiServer,
        handlers: Mapping[Resource, EventHandler],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._server = server
        self._tell = {resource.plural: handler for resource, handler in handlers.items()}
        self._spawn = spawn
        self._begun = False
        self._untold: dict[tuple[str, str], list[tuple[str | None, Object]]] = {}
        self._handled: set[tuple[str, str]] = set()  # whose handler has not returned
        self.order: list[tuple[str, str]] = []
        self.interrupted: set[str] = set()

    def begin(self) -> None:
        """Connect, and list everything."""
        self._begun = True
        self._server.watchers.append(self._on_event)
        for kind in WATCHED:
            if kind not in self.interrupted:
                self.resume(kind)

    def close(self) -> None:
        """No more is told."""
        if self._begun:
            self._server.watchers.remove(self._on_event)

    def _on_event(self, kind: str, event: str, body: Object) -> None:
        if kind in self._tell and kind not in self.interrupted:
            self._put(kind, event, body)

    def _put(self, kind: str, event: str | None, body: Object) -> None:
        key = kind, body["metadata"]["uid"]
        if key not in self._untold:
            self._untold[key] = []
            if key not in self._handled:
                self.order.append(key)
        self._untold[key].append((event, body))

    def interrupt(self, kind: str) -> None:
        """The connection breaks: what it has not told is lost."""
        self.interrupted.add(kind)
        self.order = [key for key in self.order if key[0] != kind]
        self._untold = {key: events for key, events in self._untold.items() if key[0] != kind}

    def resume(self, kind: str) -> None:
        """Connected anew: all is listed."""
        self.interrupted.discard(kind)
        if self._begun:
            for body in self._server.list(kind):
                self._put(kind, None, body)

    def deliver(self, place: int, skip: int = 0) -> str:
        """Tell of the object at that place, leaving out some of its events but the last."""
        key = self.order.pop(place)
        events = self._untold[key]
        skip = min(skip, len(events) - 1)
        event, body = events[skip]
        del events[: skip + 1]
        if not events:
            del self._untold[key]
        handling = self._tell[key[0]](event, body)
        if key[0] == HYBRIDJOB_TYPES.plural:
            self._handled.add(key)
            self._spawn(self._handle(key, handling))
        else:
            at_once(handling)
            if events:
                self.order.insert(place, key)
        return f"{event} {body['metadata']['name']} {body['metadata']['resourceVersion']}"

    async def _handle(self, key: tuple[str, str], handling: Awaitable[None]) -> None:
        """This one asks others, and its object's next event waits for it."""
        try:
            await handling
        finally:
            self._handled.discard(key)
            if key in self._untold:
                self.order.append(key)
