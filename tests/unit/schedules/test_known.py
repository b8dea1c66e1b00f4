from hybridjobs.schedules.known import KnownSchedules, States
from hybridjobs.store.schedules import ScheduleState
from tests.unit.schedules.objects import hybridjobschedule

ONE = hybridjobschedule(uid="hjs-1")
FAULTY = hybridjobschedule("0 0 30 2 *", uid="hjs-2", name="never")


def _uids(known: KnownSchedules) -> set[str]:
    return {each.uid for each in known.all()}


def _woken(known: KnownSchedules) -> tuple[bool, bool]:
    woken = known.changed.is_set(), known.told.is_set()
    known.changed.clear()
    known.told.clear()
    return woken


async def test_events_tell_what_is_there() -> None:
    known = KnownSchedules()
    await known.on_event(None, ONE)
    await known.on_event("ADDED", FAULTY)
    assert _uids(known) == {"hjs-1", "hjs-2"}
    assert [each.uid for each in known.schedules()] == ["hjs-1"]
    assert _woken(known) == (True, True)
    await known.on_event("DELETED", ONE)
    assert _uids(known) == {"hjs-2"}
    assert _woken(known) == (True, True)


async def test_a_new_status_wakes_nobody_and_a_new_spec_does() -> None:
    known = KnownSchedules()
    await known.on_event("ADDED", ONE)
    _woken(known)
    await known.on_event("MODIFIED", hybridjobschedule(uid="hjs-1", status={"active": 1}))
    assert _woken(known) == (False, False)
    assert known.all()[0].body["status"] == {"active": 1}
    await known.on_event("MODIFIED", hybridjobschedule("@daily", uid="hjs-1", generation=2))
    assert _woken(known) == (True, True)
    assert known.schedules()[0].expression == "0 0 * * *"


async def test_one_that_is_being_deleted_is_gone() -> None:
    known = KnownSchedules()
    await known.on_event("ADDED", ONE)
    ending = {**ONE["metadata"], "deletionTimestamp": "2026-01-02T00:00:00Z"}
    await known.on_event("MODIFIED", {**ONE, "metadata": ending})
    assert _uids(known) == set()


async def test_a_late_deletion_leaves_the_successor() -> None:
    known = KnownSchedules()
    await known.on_event("ADDED", hybridjobschedule(uid="hjs-9"))
    await known.on_event("DELETED", ONE)
    assert _uids(known) == {"hjs-9"}


async def test_a_list_removes_what_no_event_told() -> None:
    known = KnownSchedules()
    await known.on_event("ADDED", ONE)
    known.replace_all([FAULTY], events=known.events)
    assert _uids(known) == {"hjs-2"}
    assert known.complete


async def test_a_list_that_an_event_has_overtaken_changes_nothing() -> None:
    known = KnownSchedules()
    before = known.events
    await known.on_event("DELETED", ONE)
    known.replace_all([ONE], events=before)
    assert _uids(known) == set()
    assert not known.complete


async def test_the_answer_to_a_write_gives_way_to_what_came_since() -> None:
    known = KnownSchedules()
    await known.on_event("ADDED", ONE)
    [before] = known.all()
    written = hybridjobschedule(uid="hjs-1", status={"active": 1})
    known.replace(before, written)
    assert known.all()[0].body is written
    await known.on_event("DELETED", ONE)
    known.replace(before, written)
    assert _uids(known) == set()


async def test_the_reporter_is_woken_when_the_database_holds_something_else() -> None:
    known = KnownSchedules()
    states = States({"hjs-1": ScheduleState(0, ())}, ["test/long"])
    known.tell(states)
    assert _woken(known) == (False, True)
    known.tell(States(dict(states.by_uid), list(states.types)))
    assert _woken(known) == (False, False)
    known.tell(States({"hjs-1": ScheduleState(1, ())}, ["test/long"]))
    assert _woken(known) == (False, True)
