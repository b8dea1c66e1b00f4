from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs.model import Decision
from hybridjobs.schedules.ticks import ALIASES, Fault, Schedule, Tick, decide, job_of
from tests.builders import job_type
from tests.unit.schedules.objects import hybridjobschedule, parsed

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
# Clocks are changed by one hour in the night, at midnight, by two, and never.
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Africa/Cairo",
    "America/Santiago",
    "America/Havana",
    "Antarctica/Troll",
    "Asia/Kolkata",
)
CRONS = (
    "* * * * *",
    "*/7 * * * *",
    "0 * * * *",
    "30 * * * *",
    "*/15 1-3 * * *",
    "*/30 0 * * *",
    "0 0 * * *",
    "30 2 * * *",
    "0,30 1,2,3 * * *",
    "30 23 * * *",
    "15 2 * * SUN",
    "0 0 L * *",
    "0 12 1,15 * MON",
)

fields = st.sampled_from(["*", "*/2", "0", "1", "5,10", "0-3", "*/5"])
crons = st.one_of(
    st.sampled_from(CRONS),
    st.builds(
        lambda minute, hour, day: f"{minute} {hour} {day} * *",
        fields,
        fields,
        st.sampled_from(["*", "1", "*/3", "28-31"]),
    ),
)
# Days on which one of the zones changes its clocks.
CHANGES = ("03-08", "03-29", "04-05", "04-24", "09-06", "10-25", "10-29", "11-01")
moments = st.one_of(
    st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)),
    st.builds(
        lambda day, hours: datetime.fromisoformat(f"2026-{day}") + timedelta(hours=hours),
        st.sampled_from(CHANGES),
        st.integers(-4, 8),
    ),
).map(lambda moment: moment.replace(tzinfo=UTC))


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _texts(schedule: Schedule, after: str, count: int) -> list[str]:
    return [f"{tick:%m-%d %H:%M}" for tick in islice(schedule.ticks(_utc(after)), count)]


# What is taken, and what is not ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "reason", "words"),
    [
        ({"schedule": "61 * * * *"}, "InvalidSchedule", "spec.schedule: '61 * * * *': bad minute"),
        ({"schedule": "0 0 32 * *"}, "InvalidSchedule", "bad day-of-month"),
        ({"schedule": "0 0 1 13 *"}, "InvalidSchedule", "bad month"),
        ({"schedule": "0 0 * * SUN#6"}, "InvalidSchedule", "bad day-of-week"),
        ({"schedule": "0 0 30 13 *"}, "InvalidSchedule", "bad month"),
        ({"schedule": "0 * * * * *"}, "InvalidSchedule", "must have five fields"),
        ({"schedule": "@reboot"}, "InvalidSchedule", "@daily"),
        ({"schedule": ""}, "InvalidSchedule", "must have five fields"),
        ({"schedule": "CRON_TZ=UTC 0 0 * * *"}, "InvalidSchedule", "must have five fields"),
        ({"schedule": "0 0 30 2 *"}, "NeverFires", "spec.schedule: '0 0 30 2 *' never fires"),
        ({"schedule": "0 0 31 4,6,9,11 *"}, "NeverFires", "never fires"),
        ({"schedule": "* * */20 * 1L"}, "NeverFires", "never fires"),
        ({"timeZone": "Mars/Olympus"}, "UnknownTimeZone", "spec.timeZone: 'Mars/Olympus'"),
        ({"timeZone": "America"}, "UnknownTimeZone", "spec.timeZone"),
        ({"timeZone": "../../etc/passwd"}, "UnknownTimeZone", "spec.timeZone"),
        ({"timeZone": "right/UTC"}, "UnknownTimeZone", "spec.timeZone"),
        ({"timeZone": "localtime"}, "UnknownTimeZone", "spec.timeZone"),
        ({"timeZone": ""}, "UnknownTimeZone", "spec.timeZone"),
        ({"payload": {"a": "\0"}}, "InvalidPayload", "spec.payload: /payload/a"),
        ({"concurrencyPolicy": "Queue"}, "Invalid", "concurrencyPolicy"),
    ],
)
def test_a_fault_names_its_field(parts: dict[str, Any], reason: str, words: str) -> None:
    fault = Schedule.parse(hybridjobschedule(**parts))
    assert isinstance(fault, Fault)
    assert fault.reason == reason
    assert words in fault.message


@given(st.text(st.sampled_from("0123456789*/-,#LW SUNMONJANfeb²ß@\t"), max_size=40))
def test_no_text_is_more_than_a_fault(text: str) -> None:
    Schedule.parse(hybridjobschedule(text))


@given(st.text(max_size=20))
def test_no_zone_is_more_than_a_fault(text: str) -> None:
    assert isinstance(Schedule.parse(hybridjobschedule(timeZone=text)), Fault)


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_its_five_fields(alias: str) -> None:
    after = CREATED + timedelta(minutes=1)
    expected = islice(parsed(ALIASES[alias]).ticks(after), 3)
    assert list(islice(parsed(alias).ticks(after), 3)) == list(expected)
    assert parsed(alias.upper()).expression == ALIASES[alias]


def test_a_leap_day_fires() -> None:
    assert parsed("0 0 29 2 *").next_tick(CREATED) == _utc("2028-02-29T00:00")


# Time zones -----------------------------------------------------------------------------------


def test_it_fires_by_its_zones_clock() -> None:
    schedule = parsed("0 9 * * *", timeZone="America/New_York")
    assert _texts(schedule, "2026-03-06T20:00", 3) == ["03-07 14:00", "03-08 13:00", "03-09 13:00"]


def test_a_fixed_time_that_is_skipped_fires_when_the_hour_is_over() -> None:
    # 02:00 to 03:00 does not exist in Berlin on 29 March.
    schedule = parsed("30 2 * * *", timeZone="Europe/Berlin")
    assert _texts(schedule, "2026-03-27T12:00", 3) == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]


def test_several_that_are_skipped_fire_once() -> None:
    schedule = parsed("0,20,40 2,3 * * *", timeZone="Europe/Berlin")
    found = _texts(schedule, "2026-03-29T00:00", 3)
    assert found == ["03-29 01:00", "03-29 01:20", "03-29 01:40"]


def test_a_fixed_time_that_comes_twice_fires_the_first_time() -> None:
    # 02:00 to 03:00 comes twice in Berlin on 25 October.
    schedule = parsed("30 2 * * *", timeZone="Europe/Berlin")
    assert _texts(schedule, "2026-10-24T12:00", 2) == ["10-25 00:30", "10-26 01:30"]
    assert _texts(schedule, "2026-10-25T00:30", 1) == ["10-26 01:30"]
    assert _texts(schedule, "2026-10-25T01:15", 1) == ["10-26 01:30"]


def test_a_star_follows_the_clock() -> None:
    hourly = parsed("0 * * * *", timeZone="Europe/Berlin")
    assert _texts(hourly, "2026-10-24T23:00", 3) == ["10-25 00:00", "10-25 01:00", "10-25 02:00"]
    by_night = parsed("*/30 2 * * *", timeZone="Europe/Berlin")
    assert _texts(by_night, "2026-03-28T12:00", 1) == ["03-30 00:00"]
    assert _texts(by_night, "2026-10-25T00:00", 3) == ["10-25 00:30", "10-25 01:00", "10-25 01:30"]


# Which ticks are due --------------------------------------------------------------------------


@given(crons, st.sampled_from(ZONES), moments, st.lists(st.integers(1, 3 * 86_400), max_size=8))
def test_every_tick_is_due_once_and_in_order_however_time_is_cut(
    cron: str, zone: str, start: datetime, steps: list[int]
) -> None:
    schedule = parsed(cron, timeZone=zone, created=start.isoformat())
    decided_until, now, found = None, start, list[datetime]()
    for seconds in steps:
        now += timedelta(seconds=seconds)
        due = schedule.due_ticks(decided_until, now, at_most=10_000)
        found += due
        decided_until = due[-1] if due else decided_until
        assert schedule.due_ticks(decided_until, now, at_most=10_000) == []
    assert found == sorted(set(found))
    whole = schedule.due_ticks(None, now, at_most=50_000)
    assert found == whole
    assert all(start < tick <= now for tick in whole)


@given(crons, st.sampled_from(ZONES), moments, st.integers(0, 20 * 86_400), st.integers(1, 100))
def test_only_the_newest_are_looked_at(
    cron: str, zone: str, start: datetime, seconds: int, at_most: int
) -> None:
    schedule = parsed(cron, timeZone=zone, created=start.isoformat())
    now = start + timedelta(seconds=seconds)
    every = schedule.due_ticks(None, now, at_most=50_000)
    assert schedule.due_ticks(None, now, at_most=at_most) == every[-at_most:]


def test_what_was_before_the_schedule_is_not_due() -> None:
    schedule = parsed("0 0 * * *", created="2026-03-01T00:00:00Z")
    assert schedule.due_ticks(None, _utc("2026-03-01T12:00"), at_most=10) == []
    assert schedule.due_ticks(_utc("2025-01-01"), _utc("2026-03-01T12:00"), at_most=10) == []
    assert schedule.due_ticks(None, _utc("2026-03-02"), at_most=10) == [_utc("2026-03-02")]


def test_a_clock_that_was_set_back_decides_nothing_twice() -> None:
    assert parsed().due_ticks(_utc("2026-02-01"), _utc("2026-01-31"), at_most=10) == []


@pytest.mark.timeout(5)
def test_years_of_absence_cost_no_more_than_hours() -> None:
    schedule = parsed("* * * * *", timeZone="Europe/Berlin", created="2006-01-01T00:00:00Z")
    due = schedule.due_ticks(None, _utc("2026-01-01"), at_most=100)
    assert (len(due), due[-1]) == (100, _utc("2026-01-01"))


# What becomes of them -------------------------------------------------------------------------

NOW = CREATED + timedelta(minutes=3, seconds=10)
LAST = CREATED + timedelta(minutes=3)


@pytest.mark.parametrize(
    ("spec", "open_jobs", "expected"),
    [
        ({}, 0, Decision.SUBMITTED),
        ({}, 2, Decision.SUBMITTED),
        ({"concurrencyPolicy": "Forbid"}, 0, Decision.SUBMITTED),
        ({"concurrencyPolicy": "Forbid"}, 1, Decision.SKIPPED),
        ({"concurrencyPolicy": "Replace"}, 0, Decision.SUBMITTED),
        ({"concurrencyPolicy": "Replace"}, 2, Decision.REPLACED),
        ({"startingDeadlineSeconds": 10}, 0, Decision.SUBMITTED),
        ({"startingDeadlineSeconds": 9}, 0, Decision.MISSED),
        ({"startingDeadlineSeconds": 9, "concurrencyPolicy": "Forbid"}, 1, Decision.MISSED),
        ({"suspend": True}, 0, Decision.SKIPPED),
        ({"suspend": True, "startingDeadlineSeconds": 9}, 0, Decision.SKIPPED),
    ],
)
def test_the_newest_tick(spec: dict[str, Any], open_jobs: int, expected: Decision) -> None:
    decided_until = LAST - timedelta(minutes=1)
    ticks = decide(parsed(**spec), decided_until=decided_until, now=NOW, open_jobs=open_jobs)
    assert ticks == [Tick(LAST, expected)]


def test_of_several_only_the_newest_runs() -> None:
    ticks = decide(parsed(), decided_until=None, now=NOW, open_jobs=0)
    assert [tick.decision for tick in ticks] == [
        Decision.MISSED,
        Decision.MISSED,
        Decision.SUBMITTED,
    ]
    assert ticks[-1].tick_at == LAST


def test_what_passed_while_suspended_is_past() -> None:
    ticks = decide(parsed(suspend=True), decided_until=None, now=NOW, open_jobs=0)
    assert {tick.decision for tick in ticks} == {Decision.SKIPPED}
    assert decide(parsed(), decided_until=ticks[-1].tick_at, now=NOW, open_jobs=0) == []


@pytest.mark.parametrize(("limit", "looked_at"), [(0, 1), (1, 1), (2, 2), (100, 3)])
def test_no_more_are_recorded_than_are_shown(limit: int, looked_at: int) -> None:
    ticks = decide(parsed(historyLimit=limit), decided_until=None, now=NOW, open_jobs=0)
    assert len(ticks) == looked_at
    assert ticks[-1] == Tick(LAST, Decision.SUBMITTED)


@given(
    st.sampled_from(["Allow", "Forbid", "Replace"]),
    st.integers(0, 100),
    st.lists(st.tuples(st.integers(1, 10_000), st.integers(0, 1)), max_size=20),
)
def test_a_look_starts_at_most_one_job_and_no_tick_two(
    policy: str, limit: int, looks: list[tuple[int, int]]
) -> None:
    schedule = parsed(concurrencyPolicy=policy, historyLimit=limit, startingDeadlineSeconds=60)
    decided_until, now, started = None, CREATED, list[datetime]()
    for seconds, open_jobs in looks:
        now += timedelta(seconds=seconds)
        ticks = decide(schedule, decided_until=decided_until, now=now, open_jobs=open_jobs)
        starting = [tick.tick_at for tick in ticks if tick.decision.starts_job]
        assert len(starting) <= 1
        started += starting
        decided_until = ticks[-1].tick_at if ticks else decided_until
    assert started == sorted(set(started))


def test_a_ticks_job_takes_from_its_type_what_the_schedule_leaves_open() -> None:
    spec: dict[str, Any] = {"deadlineSeconds": 60, "priority": 4, "retry": {"limit": 7}}
    limited = job_type(concurrency={"limit": 1, "key": "repository"}, **spec)
    job = job_of(parsed(payload={"a": 1}), limited, LAST)
    assert (job.type, job.payload, job.source) == ("test/long", '{"a":1}', "schedule")
    assert job.key == "hjs-1/2026-01-01T00:03:00Z"
    assert (job.priority, job.deadline_seconds, job.max_retries) == (4, 60, 7)
    assert (job.key_path, job.submitted_by) == ("repository", "schedule:nightly")
    own = job_of(parsed(priority=-1, deadlineSeconds=5), limited, LAST)
    assert (own.priority, own.deadline_seconds) == (-1, 5)


def test_a_ticks_job_calls_back_as_its_type_says() -> None:
    told = job_type("a/b", callback={"url": "https://receiver.example", "events": ["failed"]})
    [callback] = job_of(parsed(), told, LAST).callbacks
    assert (callback.url, callback.events) == ("https://receiver.example", ("failed",))
