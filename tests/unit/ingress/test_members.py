"""What members and parameters may be."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from hybridjobs.errors import InvalidInput
from hybridjobs.ingress import members as checks
from hybridjobs.ingress.members import Check, Fault, read_query

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("2026-11-24T12:00:00Z", NOON),
        ("2026-11-24t12:00:00z", NOON),
        ("2026-11-24 14:00:00+02:00", NOON),
        ("2026-11-24T12:00:00.250000001Z", NOON + timedelta(milliseconds=250)),
    ],
)
def test_moments_are_those_of_rfc_3339(written: str, found: datetime) -> None:
    assert checks.moment(written) == found
    assert checks.moment(written).tzinfo is UTC


@pytest.mark.parametrize(
    "written",
    [
        "",
        "now",
        "2026-11-24",
        "2026-W48-2T12:00:00Z",
        "20261124T120000Z",
        "2026-11-24T12:00:00",
        "2026-11-24T12:00:60Z",
        "2026-02-30T12:00:00Z",
        "2026-11-24T12:00:00+24:00",
        "٢٠٢٦-11-24T12:00:00Z",
        "1999-12-31T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2099-01-01T00:00:00Z",
        1764000000,
        None,
    ],
)
def test_other_moments_are_refused(written: object) -> None:
    with pytest.raises(Fault):
        checks.moment(written)


@given(st.datetimes(datetime(2000, 1, 2), datetime(2026, 1, 1)), st.integers(-1439, 1439))
def test_every_moment_in_range_is_read(moment: datetime, offset_minutes: int) -> None:
    zone = timezone(timedelta(minutes=offset_minutes))
    there = moment.replace(tzinfo=UTC).astimezone(zone)
    assert checks.moment(there.isoformat()) == there


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (checks.text, ""),
        (checks.text, "x" * 256),
        (checks.text, "a\0b"),
        (checks.text, "\ud800"),
        (checks.text, 1),
        (checks.note, "a\0b"),
        (checks.note, "\udfff"),
        (checks.note, "x" * 4001),
        (checks.integer(0, 9), 10),
        (checks.integer(0, 9), True),
        (checks.integer(0, 9), 1.0),
        (checks.number(0, 9), 0),
        (checks.number(0, 9), True),
        (checks.number(0, 9), "1"),
        (checks.digits(0, 9), "٣"),
        (checks.digits(0, 9), "-1"),
        (checks.digits(0, 9), "0000000001"),
        (checks.one_of(("a", "b")), "c"),
        (checks.one_of(("a", "b")), ["a"]),
        (checks.some_of(("a", "b")), "a,"),
        (checks.texts(2), "a"),
        (checks.texts(2), ["a", "b", "c"]),
        (checks.texts(2), ["a", 1]),
        (checks.identifier, "01a20b6b59ce70c4919bbe41339fc912"),
        (checks.identifier, "{01a20b6b-59ce-70c4-919b-be41339fc912}"),
        (checks.identifier, 1),
    ],
)
def test_what_is_refused(check: Check, value: object) -> None:
    with pytest.raises(Fault):
        check(value)


def test_what_is_taken() -> None:
    assert checks.some_of(("a", "b"))("b,a") == ("b", "a")
    assert checks.number(0, 9)(9) == 9.0
    assert checks.note("two\nlines") == "two\nlines"
    assert checks.texts(2)(["a", "b"]) == ("a", "b")
    id_ = "01A20B6B-59CE-70c4-919b-be41339fc912"
    assert checks.identifier(id_) == UUID(id_)


def test_every_fault_of_a_query_is_named() -> None:
    with pytest.raises(InvalidInput) as caught:
        read_query(
            QueryParams("limit=0&statuss=queued&type=a&type=b"),
            {"limit": checks.digits(1, 9), "type": checks.text},
        )
    assert [error.path for error in caught.value.errors] == ["/limit", "/statuss", "/type"]
