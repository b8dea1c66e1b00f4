"""When a schedule fires, and what becomes of its ticks: pure decisions.

A tick is a moment in UTC. Its cron expression is read in the schedule's time zone, as Debian's cron
does, when clocks are changed:

- A fixed time within the hour that is skipped fires at that hour's end, once; one within the hour
  that comes twice fires the first time.
- Where minute or hour begin with a star the clock is followed: nothing fires in the hour that is
  skipped, and the hour that comes twice fires twice.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import takewhile
from typing import Any, Self
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import ValidationError

from hybridjobs import codec
from hybridjobs.errors import InvalidInput
from hybridjobs.ids import derived_id
from hybridjobs.model import Decision, JobType, NewJob, ScheduleSpec
from hybridjobs.payload import check_payload

Object = dict[str, Any]

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_FIELDS = 5
_MAX_MESSAGE = 1024
# Files beside the zones' own: what the machine's clock shows, and a placeholder.
_NO_ZONES = {"localtime", "Factory"}


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a schedule cannot be followed: one CamelCase word, and a message that names the field."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A moment at which a schedule fires, in UTC, and what becomes of it."""

    tick_at: datetime
    decision: Decision


@dataclass(frozen=True, slots=True)
class Schedule:
    """A HybridJobSchedule that can be followed. `payload` is JSON text."""

    uid: str
    name: str
    created_at: datetime
    spec: ScheduleSpec
    expression: str
    zone: ZoneInfo
    payload: str

    @classmethod
    def parse(cls, body: Object) -> Self | Fault:
        """From the object; the first fault, where there is any."""
        try:
            spec = ScheduleSpec.model_validate(body["spec"])
        except ValidationError as error:
            return Fault("Invalid", str(error)[:_MAX_MESSAGE])
        if spec.time_zone not in _zone_names():
            return Fault(
                "UnknownTimeZone",
                f"spec.timeZone: {spec.time_zone!r} is no time zone of the IANA database",
            )
        expression = _expression(spec.schedule)
        if isinstance(expression, Fault):
            return expression
        payload = codec.dumps(spec.payload)
        try:
            check_payload(payload)
        except InvalidInput as error:
            return Fault("InvalidPayload", f"spec.payload: {error.detail}")
        metadata = body["metadata"]
        return cls(
            uid=metadata["uid"],
            name=metadata["name"],
            created_at=datetime.fromisoformat(metadata["creationTimestamp"]),
            spec=spec,
            expression=expression,
            zone=ZoneInfo(spec.time_zone),
            payload=payload,
        )

    def ticks(self, after: datetime) -> Iterator[datetime]:
        """The moments later than `after` at which it fires, in UTC, in order."""
        last = after
        for local in CronSim(self.expression, after.astimezone(self.zone)):
            tick = local.astimezone(UTC)
            # Begun within the second of two equal hours, cronsim repeats ticks of the first.
            if tick > last:
                last = tick
                yield tick

    def next_tick(self, after: datetime) -> datetime | None:
        """The first tick later than `after`."""
        return next(self.ticks(after), None)

    def due_ticks(
        self, decided_until: datetime | None, now: datetime, *, at_most: int
    ) -> list[datetime]:
        """The newest `at_most` ticks until `now` that are not decided yet, oldest first.

        None of them is earlier than the schedule itself.
        """
        after = self.created_at
        if decided_until is not None:
            after = max(after, decided_until)
        first = self.next_tick(after)
        if first is None or first > now:
            return []
        # Looking back further and further costs the same after a year's absence as after an hour's.
        reach = timedelta(minutes=at_most)
        while True:
            start = max(after, now - reach)
            due = deque(takewhile(lambda tick: tick <= now, self.ticks(start)), at_most)
            if len(due) == at_most or start == after:
                return list(due)
            reach *= 2


def decide(
    schedule: Schedule, *, decided_until: datetime | None, now: datetime, open_jobs: int
) -> list[Tick]:
    """What becomes of the ticks that are due, oldest first. Only the last may have a job.

    More ticks than `historyLimit` shows are not looked at. `open_jobs` counts the schedule's jobs
    that are queued or processing.
    """
    spec = schedule.spec
    due = schedule.due_ticks(decided_until, now, at_most=max(spec.history_limit, 1))
    if not due:
        return []
    if spec.suspend:
        # Decided all the same, so that what is past stays past when the schedule is resumed.
        return [Tick(tick_at, Decision.SKIPPED) for tick_at in due]
    *older, newest = due
    return [
        *(Tick(tick_at, Decision.MISSED) for tick_at in older),
        Tick(newest, _decision(spec, late=now - newest, open_jobs=open_jobs)),
    ]


def _decision(spec: ScheduleSpec, *, late: timedelta, open_jobs: int) -> Decision:
    limit = spec.starting_deadline_seconds
    if limit is not None and late > timedelta(seconds=limit):
        return Decision.MISSED
    if open_jobs and spec.concurrency_policy == "Forbid":
        return Decision.SKIPPED
    if open_jobs and spec.concurrency_policy == "Replace":
        return Decision.REPLACED
    return Decision.SUBMITTED


def job_of(schedule: Schedule, job_type: JobType, tick_at: datetime) -> NewJob:
    """The job of a tick. Its key follows from the tick: there is never a second one.

    So does its id: where a database from a backup does not know it, the cluster's HybridJob does.
    """
    spec, type_spec = schedule.spec, job_type.spec
    key = f"{schedule.uid}/{rfc3339(tick_at)}"
    return NewJob(
        id=derived_id(key, tick_at),
        type=type_spec.type,
        payload=schedule.payload,
        source="schedule",
        key=key,
        priority=type_spec.priority if spec.priority is None else spec.priority,
        max_retries=type_spec.retry.limit,
        deadline_seconds=spec.deadline_seconds or type_spec.deadline_seconds,
        submitted_by=f"schedule:{schedule.name}",
        key_path=type_spec.key_path,
        callbacks=type_spec.callbacks(),
    )


def rfc3339(moment: datetime) -> str:
    """The moment in UTC, to the second, as Kubernetes writes times."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones() - _NO_ZONES)


def _expression(schedule: str) -> str | Fault:
    """The five fields of a schedule."""
    expression = ALIASES.get(schedule.strip().lower(), schedule)
    field = f"spec.schedule: {schedule!r}"
    parts = expression.split()
    if len(parts) != _FIELDS:
        return Fault(
            "InvalidSchedule",
            f"{field} must have five fields (minute, hour, day of month, month, day of week) "
            f"or be one of {', '.join(ALIASES)}",
        )
    minute, hour, day, month, weekday = parts
    try:
        fires = next(CronSim(expression, _EPOCH), None) is not None
    except CronSimError as error:
        # cronsim refuses a day that none of these months has like one that does not exist.
        if not (_parses(f"{minute} {hour} {day} * {weekday}") and _parses(f"0 0 1 {month} *")):
            return Fault("InvalidSchedule", f"{field}: {str(error).lower()}")
        fires = False
    return expression if fires else Fault("NeverFires", f"{field} never fires")


def _parses(expression: str) -> bool:
    try:
        CronSim(expression, _EPOCH)
    except CronSimError:
        return False
    return True
