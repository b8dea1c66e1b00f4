"""The loop that decides each tick when it is due, by the database's clock.

Any number of processes may run it: a tick is decided once, whoever comes first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import structlog

from hybridjobs.errors import BrokenPayloadSchema, DatabaseUnavailable, InvalidInput, RowLocked
from hybridjobs.model import JobType
from hybridjobs.payload_schemas import PayloadSchemas
from hybridjobs.schedules.known import KnownSchedules, States
from hybridjobs.schedules.ticks import Schedule, decide, job_of, rfc3339
from hybridjobs.store.database import Database
from hybridjobs.store.schedules import (
    ScheduleState,
    forget_schedules,
    lock_schedule,
    read_schedules,
    record_ticks,
    submit_tick,
)
from hybridjobs.store.types import list_types
from hybridjobs.waits import set_within

log = structlog.get_logger(__name__)

_POLL_SECONDS = 30.0
_RETRY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _View:
    """What one look at the database showed."""

    now: datetime
    types: Mapping[str, JobType]
    states: Mapping[str, ScheduleState]
    refused: Mapping[str, str]

    def is_due(self, schedule: Schedule) -> bool:
        state = self.states.get(schedule.uid)
        return (
            state is not None
            and schedule.spec.type in self.types
            and schedule.uid not in self.refused
            and schedule.due_ticks(state.decided_until, self.now, at_most=1) != []
        )


class Ticker:
    """Turns ticks into jobs until cancelled."""

    def __init__(self, database: Database, known: KnownSchedules) -> None:
        self._database = database
        self._known = known
        self._schemas = PayloadSchemas()

    async def run(self) -> None:
        """Decide at every tick, at every change and every 30 s; a database away is waited for."""
        while True:
            self._known.changed.clear()
            try:
                seconds = await self.once()
            except DatabaseUnavailable as error:
                log.warning("schedules wait", error=error.detail, seconds=_RETRY_SECONDS)
                seconds = _RETRY_SECONDS
            await set_within(self._known.changed, seconds)

    async def once(self) -> float:
        """Decide every tick that is due; returns the seconds until it is worth looking again."""
        view = await self._look()
        if due := [each for each in self._known.schedules() if view.is_due(each)]:
            for schedule in due:
                await self._decide(schedule, view.types[schedule.spec.type])
            view = await self._look()
        self._known.tell(States(view.states, sorted(view.types), view.refused))
        return self._seconds_until_next(view.now)

    async def _look(self) -> _View:
        names = {each.uid: each.body["metadata"]["name"] for each in self._known.all()}
        async with self._database.connection() as connection:
            if self._known.complete:
                await forget_schedules(connection, list(names))
            types = {each.spec.type: each for each in await list_types(connection)}
            now, states = await read_schedules(connection, names)
        return _View(now, types, states, self._refused(types))

    def _refused(self, types: Mapping[str, JobType]) -> dict[str, str]:
        """Why the payloads of schedules do not fit their types, by uid; of those that do not."""
        refused = {}
        for schedule in self._known.schedules():
            job_type = types.get(schedule.spec.type)
            if job_type is None:
                continue
            try:
                self._schemas.check(job_type, schedule.payload)
            except InvalidInput as error:
                refused[schedule.uid] = error.in_full()
            except BrokenPayloadSchema as error:
                refused[schedule.uid] = str(error)
        return refused

    async def _decide(self, schedule: Schedule, job_type: JobType) -> None:
        try:
            await self._commit(schedule, job_type)
        # The other schedules go on; this one is tried again at the next look.
        except RowLocked as error:
            log.warning("schedule waits", schedule=schedule.name, error=error.detail)
        except DatabaseUnavailable:
            raise
        except Exception:
            log.exception("schedule failed", schedule=schedule.name)

    async def _commit(self, schedule: Schedule, job_type: JobType) -> None:
        uid, name = schedule.uid, schedule.name
        async with self._database.transaction() as connection:
            memory = await lock_schedule(connection, uid, name)
            ticks = decide(
                schedule,
                decided_until=memory.decided_until,
                now=memory.now,
                open_jobs=len(memory.open_jobs),
            )
            if not ticks:
                return  # another process was first
            inserted = await record_ticks(
                connection,
                uid,
                name,
                {tick.tick_at: tick.decision for tick in ticks},
                kept=schedule.spec.history_limit,
            )
            newest, job_id = ticks[-1], None
            if newest.decision.starts_job and newest.tick_at in inserted:
                job_id = await submit_tick(
                    connection,
                    uid,
                    name,
                    newest.tick_at,
                    job_of(schedule, job_type, newest.tick_at),
                    replaced=memory.open_jobs if newest.decision.replaces else (),
                )
        log.info(
            "tick decided",
            schedule=name,
            tick=rfc3339(newest.tick_at),
            decision=newest.decision.value,
            job_id=str(job_id) if job_id else None,
            ticks=len(ticks),
        )

    def _seconds_until_next(self, now: datetime) -> float:
        upcoming = (each.next_tick(now) for each in self._known.schedules())
        waits = [(tick - now).total_seconds() for tick in upcoming if tick is not None]
        return min([_POLL_SECONDS, *waits])
