import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs.errors import InvalidInput
from hybridjobs.payload import MAX_DEPTH, check_payload, pointer

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner),
    max_leaves=200,
)


@given(_JSON, st.booleans())
def test_what_can_be_read_by_all_passes(document: object, ascii_only: bool) -> None:
    check_payload(json.dumps(document, ensure_ascii=ascii_only))


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ('"\\u0000"', "/payload"),
        ('{"a": [1, "x\\u0000y"]}', "/payload/a/1"),
        ('{"a": {"\\u0000": 1}}', "/payload/a"),
        ('{"a": "\\ud800"}', "/payload/a"),
        ('{"a": "\\uDC00\\uD800"}', "/payload/a"),
    ],
)
def test_strings_that_postgres_fails_on_later_are_refused(payload: str, path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_payload(payload)
    assert [fault.path for fault in caught.value.errors] == [path]


@pytest.mark.parametrize(
    "payload", ['"\\\\u0000"', '"\\ud83d\\ude00"', '"\\u00e9"', '"a \\\\ud800 b"']
)
def test_what_only_looks_like_them_passes(payload: str) -> None:
    check_payload(payload)


@pytest.mark.parametrize("wide", ["", ', "{[{[\\"' + "[" * 200 + '"', ", {}" * 200])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_bounded(opening: str, closing: str, wide: str) -> None:
    def nested(depth: int) -> str:
        return f"[{opening * (depth - 1)}0{closing * (depth - 1)}{wide}]"

    check_payload(nested(MAX_DEPTH))
    with pytest.raises(InvalidInput, match="nested deeper than 100"):
        check_payload(nested(MAX_DEPTH + 1))
    with pytest.raises(InvalidInput, match="nested deeper than 100"):
        check_payload(nested(100_000))


def test_a_refusal_can_be_written() -> None:
    with pytest.raises(InvalidInput) as caught:
        check_payload('{"\\ud800": "\\u0000"}')
    caught.value.detail.encode()


def test_pointers_escape() -> None:
    assert pointer("a/b", 0, "~") == "/a~1b/0/~0"
