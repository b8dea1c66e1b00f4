"""The HybridJobSchedules as the cluster showed them last, and their states in the database.

Belongs to one event loop. The watch and the reporter write what the cluster shows, the ticker what
the database holds; each wakes the other.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hybridjobs.schedules.ticks import Fault, Object, Schedule
from hybridjobs.store.schedules import ScheduleState


@dataclass(frozen=True, slots=True)
class Known:
    """An object, and what it says."""

    body: Object
    parsed: Schedule | Fault

    @property
    def uid(self) -> str:
        """The object's `metadata.uid`."""
        uid: str = self.body["metadata"]["uid"]
        return uid

    @property
    def generation(self) -> int:
        """The object's `metadata.generation`, which counts the changes of its spec."""
        generation: int = self.body["metadata"]["generation"]
        return generation


@dataclass(frozen=True, slots=True)
class States:
    """What the database holds: the states by uid, and the names of the job types.

    `refused`, by uid: why a schedule's payload does not fit its type.
    """

    by_uid: Mapping[str, ScheduleState]
    types: Sequence[str]
    refused: Mapping[str, str] = field(default_factory=dict)


class KnownSchedules:
    """The schedules, by uid: the deletion of one may be told after its successor's creation."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()  # for the ticker: one came, went, or says something else
        self.told = asyncio.Event()  # for the reporter: there may be something to say
        self.complete = False  # whether a full list has been read
        self.states: States | None = None
        self._by_uid: dict[str, Known] = {}
        self._events = 0

    def all(self) -> list[Known]:
        """Every schedule, those with a fault too."""
        return list(self._by_uid.values())

    def schedules(self) -> list[Schedule]:
        """Those that can be followed."""
        return [each.parsed for each in self.all() if isinstance(each.parsed, Schedule)]

    @property
    def events(self) -> int:
        """How many watch events have come."""
        return self._events

    async def on_event(self, kind: str | None, body: Object) -> None:
        """One watch event."""
        self._events += 1
        if kind == "DELETED":
            self._remove(body["metadata"]["uid"])
        else:
            self._put(body)

    def replace_all(self, bodies: Sequence[Object], *, events: int) -> None:
        """The full list, unless a watch has told more since `events` had come."""
        if events != self._events:
            return
        listed = {body["metadata"]["uid"] for body in bodies}
        for uid in self._by_uid.keys() - listed:
            self._remove(uid)
        for body in bodies:
            self._put(body)
        self.complete = True

    def replace(self, known: Known, body: Object) -> None:
        """A schedule as a write of ours returned it, unless a watch has told more since."""
        if self._by_uid.get(known.uid) is known:
            self._put(body)

    def tell(self, states: States) -> None:
        """What the database holds now."""
        if states != self.states:
            self.states = states
            self.told.set()

    def _put(self, body: Object) -> None:
        metadata = body["metadata"]
        if "deletionTimestamp" in metadata:
            self._remove(metadata["uid"])
            return
        known = self._by_uid.get(metadata["uid"])
        if known is not None and known.generation == metadata["generation"]:
            self._by_uid[known.uid] = Known(body, known.parsed)
            return
        self._by_uid[metadata["uid"]] = Known(body, Schedule.parse(body))
        self._wake()

    def _remove(self, uid: str) -> None:
        if self._by_uid.pop(uid, None) is not None:
            self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.told.set()
