"""Mappings: exact text, by the paths that Postgres reads for `concurrency.key` too."""

import json
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridjobs.mapping import mapped
from hybridjobs.store.embedded import EmbeddedPostgres

EVENT = (
    '{"repository": {"full_name": "a/b", "id": 12345678901234567890, "size": 1.0},'
    ' "commits": [{"id": "x"}, {"id": "y"}], "sender": null, "dup": 1, "dup": 2, "7": "seven"}'
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("repository.full_name", '"a/b"'),
        ("repository.id", "12345678901234567890"),
        ("repository.size", "1.0"),
        ("repository", '{"full_name": "a/b", "id": 12345678901234567890, "size": 1.0}'),
        ("commits.0.id", '"x"'),
        ("commits.-1.id", '"y"'),
        ("commits.01", '{"id": "y"}'),
        ("sender", "null"),
        ("dup", "2"),
        ("7", '"seven"'),
    ],
)
def test_a_value_keeps_the_text_it_was_written_in(path: str, expected: str) -> None:
    assert mapped(EVENT, {"x": path}) == f'{{"x":{expected}}}'


@pytest.mark.parametrize(
    "path",
    [
        "nope",
        "repository.nope",
        "repository.full_name.x",
        "sender.login",
        "commits.2",
        "commits.-3",
        "commits.id",
        "commits.99999999999",
        "repository.0",
    ],
)
def test_a_path_that_leads_nowhere_leaves_its_member_out(path: str) -> None:
    assert mapped(EVENT, {"a": path, "b": "7"}) == '{"b":"seven"}'


def test_members_come_in_the_mapping_s_order_and_with_any_name() -> None:
    assert mapped(EVENT, {'z"': "dup", "a": "dup"}) == '{"z\\"":2,"a":2}'


@pytest.mark.parametrize("event", ["", "{", '{"a":1,}', '{"a":NaN}', '{"a":1} x', "[1]"])
def test_what_is_no_object_is_refused(event: str) -> None:
    with pytest.raises(ValueError, match=r"expected|Expecting|JSON|comma|unexpected"):
        mapped(event, {"a": "a"})


_NAMES = ["a", "b", "0", "1", "-1"]
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab é"\\', max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=3)
    ),
    max_leaves=10,
)


def test_paths_lead_where_they_lead_in_postgres(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:

        @settings(max_examples=150)
        @given(
            event=st.dictionaries(st.sampled_from(_NAMES), _values, max_size=4),
            path=st.lists(st.sampled_from([*_NAMES, "-2", "00", "x"]), min_size=1, max_size=4),
        )
        def check(event: dict[str, Any], path: list[str]) -> None:
            text = json.dumps(event)
            row = connection.execute(
                "SELECT %s::jsonb #> string_to_array(%s, '.')", [text, ".".join(path)]
            ).fetchone()
            assert row is not None
            ours = json.loads(mapped(text, {"found": ".".join(path)}))
            assert ours.get("found") == row[0]

        check()
