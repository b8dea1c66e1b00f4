from datetime import UTC, datetime, timedelta

from hybridjobs.ids import derived_id, first_id_of, new_id


def test_new_ids_are_uuid7_and_sort_by_time() -> None:
    first = new_id()
    assert first.version == 7
    assert first.variant == "specified in RFC 4122"
    assert len({new_id() for _ in range(1000)}) == 1000
    assert new_id().int >> 80 >= first.int >> 80


def test_a_derived_id_is_the_same_every_time() -> None:
    created = datetime(2026, 1, 2, tzinfo=UTC)
    one = derived_id("uid-1", created)
    assert one == derived_id("uid-1", created)
    assert one != derived_id("uid-2", created)
    assert one.version == 7
    assert one.int >> 80 == int(created.timestamp() * 1000)


def test_the_first_id_of_a_moment_parts_earlier_ids_from_later_ones() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    bound = first_id_of(moment)
    assert bound.version == 7
    assert derived_id("uid", moment - timedelta(milliseconds=1)) < bound
    assert derived_id("uid", moment) >= bound
