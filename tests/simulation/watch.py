"""What the API server has to tell the processes that watch it."""

from hybridjobs.controller.cache import Cache
from hybridjobs.controller.watch import feeding
from hybridjobs.controller.workqueue import WorkQueue
from tests.simulation.cluster import WATCHED, ApiServer, Object
from tests.simulation.virtual import at_once


class Watch:
    """Tells of each object in order, and of several in any order.

    As kopf tells it: of several events of one object perhaps only the last; after an interruption
    everything there is, and nothing of what is gone.
    """

    def __init__(self, server: ApiServer, cache: Cache, queue: WorkQueue) -> None:
        self._server = server
        self._tell = {
            resource.plural: handler for resource, handler in feeding(cache, queue).items()
        }
        self._untold: dict[tuple[str, str], list[tuple[str | None, Object]]] = {}
        self.order: list[tuple[str, str]] = []
        self.interrupted: set[str] = set()
        server.watchers.append(self._on_event)
        for kind in WATCHED:
            self.resume(kind)

    def close(self) -> None:
        self._server.watchers.remove(self._on_event)

    def _on_event(self, kind: str, event: str, body: Object) -> None:
        if kind in self._tell and kind not in self.interrupted:
            self._put(kind, event, body)

    def _put(self, kind: str, event: str | None, body: Object) -> None:
        key = kind, body["metadata"]["uid"]
        if key not in self._untold:
            self._untold[key] = []
            self.order.append(key)
        self._untold[key].append((event, body))

    def interrupt(self, kind: str) -> None:
        """The connection breaks: what it has not told is lost."""
        self.interrupted.add(kind)
        for key in [key for key in self.order if key[0] == kind]:
            self.order.remove(key)
            del self._untold[key]

    def resume(self, kind: str) -> None:
        """Connected anew: all is listed."""
        self.interrupted.discard(kind)
        for body in self._server.list(kind):
            self._put(kind, None, body)

    def deliver(self, place: int, skip: int = 0) -> str:
        """Tell of the object at that place, leaving out some of its events but the last."""
        key = self.order[place]
        events = self._untold[key]
        skip = min(skip, len(events) - 1)
        event, body = events[skip]
        del events[: skip + 1]
        if not events:
            del self._untold[key]
            del self.order[place]
        at_once(self._tell[key[0]](event, body))
        return f"{event} {body['metadata']['name']} {body['metadata']['resourceVersion']}"
