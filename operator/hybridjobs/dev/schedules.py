"""HybridJobSchedules without a cluster: those of a folder, followed as the operator does."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from hybridjobs.errors import ConfigurationError
from hybridjobs.schedules.known import KnownSchedules
from hybridjobs.schedules.status import schedule_status
from hybridjobs.schedules.ticker import Ticker
from hybridjobs.schedules.ticks import rfc3339
from hybridjobs.store.database import Database

Object = dict[str, Any]


class LocalSchedules:
    """The schedules, and their ticks; `run()` must be running.

    One begins when this process reads it first: what would have fired before is past.
    """

    def __init__(self, database: Database, say: Callable[[str], None]) -> None:
        self._known = KnownSchedules()
        self._ticker = Ticker(database, self._known)
        self._say = say
        self._told: dict[str, str] = {}

    def replace(self, bodies: Sequence[Object]) -> None:
        """Follow these from now on; ConfigurationError names one that is no object."""
        before = {each.uid: each.body for each in self._known.all()}
        objects = [_object(body, before) for body in bodies]
        self._known.replace_all(objects, events=self._known.events)

    async def run(self) -> None:
        """Decide every tick, and say how the schedules stand, until cancelled."""
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._ticker.run())
            parts.create_task(self._tell())

    async def _tell(self) -> None:
        while True:
            self._known.told.clear()
            now = datetime.now(UTC)
            told = {}
            for known in self._known.all():
                status = schedule_status(known, self._known.states, now=now)
                if status is not None:
                    told[known.body["metadata"]["name"]] = _line(known.body, status)
            for name, line in told.items():
                if self._told.get(name) != line:
                    self._say(line)
            self._told = told
            await self._known.told.wait()


def _object(body: Object, before: dict[str, Object]) -> Object:
    """As the API server would give it."""
    name = (body.get("metadata") or {}).get("name")
    if not isinstance(name, str) or not isinstance(body.get("spec"), dict):
        raise ConfigurationError("a HybridJobSchedule needs metadata.name and spec")
    uid = f"dev-{name}"
    known = before.get(uid)
    created, generation = rfc3339(datetime.now(UTC)), 1
    if known is not None:
        created = known["metadata"]["creationTimestamp"]
        generation = known["metadata"]["generation"] + (known["spec"] != body["spec"])
    metadata = {"name": name, "uid": uid, "creationTimestamp": created, "generation": generation}
    return {"metadata": metadata, "spec": body["spec"]}


def _line(body: Object, status: Object) -> str:
    name = body["metadata"]["name"]
    [accepted] = status["conditions"]
    if accepted["status"] == "False":
        return f"HybridJobSchedule {name} is not followed: {accepted['message']}"
    spec = body["spec"]
    follows = status["nextScheduleTime"]
    when = f"next at {follows}" if follows else "suspended"
    ticks = status.get("history") or []
    last = f", last {ticks[0]['decision']}" if ticks else ""
    return f"{name}: {spec['schedule']} {spec.get('timeZone', 'UTC')} {spec['type']}, {when}{last}"
