"""The status of a HybridJobSchedule: what became of its ticks, in the cluster's words. Pure."""

from datetime import datetime

from hybridjobs.schedules.known import Known, States
from hybridjobs.schedules.ticks import Fault, Object, Schedule, rfc3339
from hybridjobs.store.schedules import DecidedTick, ScheduleState


def schedule_status(known: Known, states: States | None, *, now: datetime) -> Object | None:
    """The fields of `status` to write; None for one of no value; equal means nothing to say.

    None while the database has not been read, which a faulty schedule need not wait for.
    """
    verdict = _verdict(known, states)
    state = None if states is None else states.by_uid.get(known.uid)
    if state is None and isinstance(verdict, Schedule):
        return None
    status: Object = {
        "observedGeneration": known.generation,
        "nextScheduleTime": _next(verdict, state, now),
        "conditions": [_accepted(verdict, known, now)],
    }
    if state is not None:
        status |= _history(state, known)
    return status


def says_anything_new(known: Known, status: Object) -> bool:
    """Whether the object shows something else."""
    shown = known.body.get("status") or {}
    return any(shown.get(name) != value for name, value in status.items())


def _verdict(known: Known, states: States | None) -> Schedule | Fault:
    if isinstance(known.parsed, Schedule) and states is not None:
        type_ = known.parsed.spec.type
        if type_ not in states.types:
            names = ", ".join(states.types) or "none"
            return Fault(
                "UnknownType",
                f"spec.type: there is no HybridJobType for {type_!r}; known types: {names}",
            )
        if known.uid in states.refused:
            return Fault("InvalidPayload", f"spec.payload: {states.refused[known.uid]}")
    return known.parsed


def _next(verdict: Schedule | Fault, state: ScheduleState | None, now: datetime) -> str | None:
    if isinstance(verdict, Fault) or verdict.spec.suspend:
        return None
    decided_until = state.decided_until if state is not None else None
    # Ticks are decided by the database's clock, which may be ahead of this one.
    tick = verdict.next_tick(max(now, decided_until or now))
    return None if tick is None else rfc3339(tick)


def _accepted(verdict: Schedule | Fault, known: Known, now: datetime) -> Object:
    condition: Object = {
        "type": "Accepted",
        "status": "True",
        "reason": "Scheduled",
        "message": "its ticks become jobs",
        "observedGeneration": known.generation,
    }
    if isinstance(verdict, Fault):
        condition |= {"status": "False", "reason": verdict.reason, "message": verdict.message}
    shown = (known.body.get("status") or {}).get("conditions") or []
    since = [
        each["lastTransitionTime"]
        for each in shown
        if (each["type"], each["status"]) == ("Accepted", condition["status"])
    ]
    return {**condition, "lastTransitionTime": since[0] if since else rfc3339(now)}


def _history(state: ScheduleState, known: Known) -> Object:
    # Read leniently: a schedule with a fault has its history too.
    limit = known.body["spec"].get("historyLimit", 10)
    fields: Object = {
        "active": state.active,
        "history": [_entry(tick) for tick in state.ticks[:limit]],
    }
    started = [tick.tick_at for tick in state.ticks if tick.decision.starts_job]
    if started:  # else what it shows is older than the history
        fields["lastScheduleTime"] = rfc3339(started[0])
    return fields


def _entry(tick: DecidedTick) -> Object:
    entry: Object = {"tickAt": rfc3339(tick.tick_at), "decision": tick.decision.value}
    if tick.job_id is not None:
        entry["jobId"] = str(tick.job_id)
    return entry
