"""Events of plain senders, read from what they sent."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs.errors import InvalidInput
from hybridjobs.ingress.inngest.events import PlainEvent

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def test_the_data_is_kept_as_it_was_written() -> None:
    body = b'{"name":"a/b", "ts": 1, "id":"e-1", "data":{ "n":12345678901234567890, "x":1.0 }}'
    event = PlainEvent.parse(body)
    assert (event.name, event.id) == ("a/b", "e-1")
    assert event.data == '{ "n":12345678901234567890, "x":1.0 }'


@pytest.mark.parametrize("body", [b'{"name":"a"}', b'{"name":"a","data":null,"id":null,"user":{}}'])
def test_data_and_id_may_be_missing(body: bytes) -> None:
    assert PlainEvent.parse(body) == PlainEvent("a", "{}", None)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"{}", "/name"),
        (b'{"name":""}', "/name"),
        (b'{"name":7}', "/name"),
        (b'{"name":"a b"}', "/name"),
        (b'{"name":"a","id":""}', "/id"),
        (b'{"name":"a","id":7}', "/id"),
        (b'{"name":"a","ts":"now"}', "/ts"),
        (b'{"name":"a","ts":-1}', "/ts"),
        (b'{"name":"a","data":[1]}', "/data"),
        (b'{"name":"a","data":"x"}', "/data"),
    ],
)
def test_a_fault_is_named(body: bytes, path: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        PlainEvent.parse(body)
    assert (raised.value.status, raised.value.errors[0].path) == (422, path)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"null", b'{"a":' + b"[" * 100_000])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput) as raised:
        PlainEvent.parse(body)
    assert raised.value.status == 400


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_nothing_else_is_ever_raised(body: bytes) -> None:
    try:
        event = PlainEvent.parse(body)
    except InvalidInput:
        return
    assert isinstance(json.loads(event.data), dict)
