"""HybridJobSchedules as the API server shows them, cut to what is read."""

from typing import Any

from hybridjobs.schedules.ticks import Schedule


def hybridjobschedule(
    schedule: str = "* * * * *",
    *,
    name: str = "nightly",
    uid: str = "hjs-1",
    created: str = "2026-01-01T00:00:00Z",
    generation: int = 1,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "uid": uid,
            "generation": generation,
            "creationTimestamp": created,
        },
        "spec": {"schedule": schedule, "type": "test/long", **spec},
        **({} if status is None else {"status": status}),
    }


def parsed(schedule: str = "* * * * *", **parts: Any) -> Schedule:
    found = Schedule.parse(hybridjobschedule(schedule, **parts))
    assert isinstance(found, Schedule), found
    return found
