"""CloudEvents in every mode: exact data, and faults by the attribute's name."""

import contextlib
import json
from base64 import b64decode
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs.errors import InvalidInput, PayloadTooLarge
from hybridjobs.ingress.problems import Refused
from hybridjobs.ingress.sources.cloudevents import authorize, events_of
from hybridjobs.ingress.sources.event_format import (
    MAX_EVENTS,
    CloudEvent,
    batch,
    binary,
    mode_of,
    structured,
)

REQUIRED = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.paid"}


def ce(**attributes: str) -> list[tuple[bytes, bytes]]:
    values = {**REQUIRED, **attributes}
    return [(f"ce-{name}".encode(), value.encode()) for name, value in values.items()]


def json_type(value: str = "application/json") -> tuple[bytes, bytes]:
    return (b"content-type", value.encode())


def test_a_structured_event_is_kept_as_it_was_sent() -> None:
    text = ' {"specversion":"1.0", "id":"1","source":"/shop","type":"t","data":{"n":1.0}, "x":null}'
    event = structured(text)
    assert (event.text, event.key) == (text, "/shop 1")


def test_a_binary_event_becomes_the_structured_one_with_its_data_as_it_was_sent() -> None:
    body = b'{ "n":12345678901234567890, "x":1.0}\n'
    event = binary([*ce(subject="a%20b%E2%82%AC", myext="1"), json_type()], body)
    assert event.text == (
        '{"specversion":"1.0","id":"1","source":"/shop","type":"order.paid","subject":"a b€",'
        '"myext":"1","datacontenttype":"application/json",'
        '"data":{ "n":12345678901234567890, "x":1.0}\n}'
    )
    assert structured(event.text) == event


@pytest.mark.parametrize("type_", ["text/plain", "application/octet-stream", "application/xml"])
def test_binary_data_of_another_type_is_base64(type_: str) -> None:
    document = json.loads(binary([*ce(), json_type(type_)], b"\xff\x00\x01").text)
    assert b64decode(document["data_base64"]) == b"\xff\x00\x01"
    assert document["datacontenttype"] == type_


@pytest.mark.parametrize(
    "type_", ["application/json; charset=utf-8", "text/json", "a/json", "a/b+JSON"]
)
def test_json_has_several_media_types(type_: str) -> None:
    assert json.loads(binary([*ce(), json_type(type_)], b"[1]").text)["data"] == [1]


def test_an_event_without_a_body_has_no_data() -> None:
    assert json.loads(binary(ce(), b"").text) == REQUIRED


def test_a_body_cannot_add_attributes() -> None:
    with pytest.raises(InvalidInput) as caught:
        binary([*ce(), json_type()], b'1,"type":"another"')
    assert [each.path for each in caught.value.errors] == ["/data"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Euro%20%E2%82%AC", "Euro €"),
        ("%2541", "%41"),
        ("100%", "100%"),
        ('"quoted \\" one"', 'quoted " one'),
        ('"%41"', "A"),
        ('"', '"'),
    ],
)
def test_a_header_is_unquoted_and_decoded_once(value: str, expected: str) -> None:
    assert json.loads(binary(ce(subject=value), b"").text)["subject"] == expected


@pytest.mark.parametrize(
    ("changes", "paths"),
    [
        ({"id": None}, ["/id"]),
        ({"id": "", "source": None}, ["/source", "/id"]),
        ({"specversion": "0.3"}, ["/specversion"]),
        ({"specversion": 1.0}, ["/specversion"]),
        ({"source": "a b"}, ["/source"]),
        ({"source": "/é"}, ["/source"]),
        ({"type": 5}, ["/type"]),
        ({"type": "x" * 257}, ["/type"]),
        ({"id": "a\u0001"}, ["/id"]),
        ({"id": "x" * 1024}, ["/id"]),
        ({"subject": ""}, ["/subject"]),
        ({"time": "yesterday"}, ["/time"]),
        ({"time": "2026-13-01T00:00:00Z"}, ["/time"]),
        ({"time": "2026-12-01T12:00:60Z"}, ["/time"]),
        ({"time": "9999-12-31T23:59:60Z"}, ["/time"]),
        ({"datacontenttype": "json"}, ["/datacontenttype"]),
        ({"dataschema": ""}, ["/dataschema"]),
        ({"my_ext": "x"}, ["/my_ext"]),
        ({"Ext": "x"}, ["/Ext"]),
        ({"ext": {}}, ["/ext"]),
        ({"ext": 2**31}, ["/ext"]),
        ({"ext": 1.5}, ["/ext"]),
        ({"data": 1, "data_base64": "AA=="}, ["/data_base64"]),
        ({"data_base64": "?"}, ["/data_base64"]),
        ({"data_base64": 1}, ["/data_base64"]),
    ],
)
def test_a_fault_is_named_by_its_attribute(changes: dict[str, Any], paths: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        structured(json.dumps({**REQUIRED, **changes}))
    assert [each.path for each in caught.value.errors] == paths
    assert all(path[1:] in caught.value.detail for path in paths)


@pytest.mark.parametrize(
    "extension",
    [
        {"ext": True},
        {"ext": -5},
        {"ext": ""},
        {"ext": None},
        {"time": "1999-01-01T00:00:00.5+02:00"},
        {"time": "1999-01-01t00:00:00.123456789z"},
        {"time": "2016-12-31T23:59:60.25Z"},
    ],
)
def test_extensions_and_times_of_every_kind(extension: dict[str, Any]) -> None:
    assert structured(json.dumps({**REQUIRED, **extension})).id == "1"


@pytest.mark.parametrize(
    ("extra", "path"),
    [
        ((b"ce-subject", b"%ff"), "/subject"),
        ((b"ce-subject", b"\xff"), "/subject"),
        ((b"ce-subject", b"a%00"), "/subject"),
        ((b"ce-my-ext", b"1"), "/my-ext"),
        ((b"ce-data", b"1"), "/data"),
        ((b"ce-data_base64", b"1"), "/data_base64"),
        ((b"ce-id", b"2"), "/id"),
        ((b"ce-datacontenttype", b"text/plain"), "/datacontenttype"),
        ((b"content-type", b"\xff"), "/datacontenttype"),
    ],
)
def test_a_fault_in_a_header_is_named_too(extra: tuple[bytes, bytes], path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        binary([*ce(), extra], b"")
    assert [each.path for each in caught.value.errors] == [path]


def test_a_batch_tells_good_events_from_bad_ones() -> None:
    good, bad = json.dumps(REQUIRED), json.dumps({**REQUIRED, "id": ""})
    first, second, third = batch(f"[{good}, {bad}, 5]")
    assert isinstance(first, CloudEvent)
    assert first.text == good
    assert isinstance(second, InvalidInput)
    assert isinstance(third, InvalidInput)
    assert batch("[]") == []
    with pytest.raises(PayloadTooLarge):
        batch(f"[{','.join(['1'] * (MAX_EVENTS + 1))}]")


@pytest.mark.parametrize("text", ["", "{}", "[", "[1,]", "[" * 100_000])
def test_what_is_no_batch(text: str) -> None:
    with pytest.raises(InvalidInput):
        batch(text)


@pytest.mark.parametrize(
    ("content_type", "mode"),
    [
        (b"application/cloudevents+json", "structured"),
        (b"Application/CloudEvents+JSON; charset=UTF-8", "structured"),
        (b"application/cloudevents-batch+json", "batch"),
        (b"application/json", "binary"),
        (b"", "binary"),
    ],
)
def test_the_content_type_says_the_mode(content_type: bytes, mode: str) -> None:
    assert mode_of(content_type) == mode


@pytest.mark.parametrize("kind", ["", "+xml", "+avro", "-batch", "-batch+xml"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        mode_of(f"application/cloudevents{kind}".encode())
    assert caught.value.status == 415


@given(
    id_=st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=40),
    data=st.recursive(
        st.none() | st.integers() | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("ab"), inner),
        max_leaves=5,
    ),
)
def test_every_mode_gives_the_same_event(id_: str, data: Any) -> None:
    text = json.dumps(data)
    sent = binary([*ce(id=quote(id_)), json_type()], text.encode())
    whole = structured(json.dumps({**REQUIRED, "id": id_, "data": data}))
    assert (sent.key, json.loads(sent.text)["data"]) == (whole.key, data)


_names = st.sampled_from(
    [b"content-type", *(f"ce-{name}".encode() for name in (*REQUIRED, "time", "x", "data", "A-_"))]
) | st.binary(max_size=8).map(lambda rest: b"ce-" + rest)
_values = st.binary(max_size=20) | st.sampled_from(
    [b"1.0", b"/a", b'"a\\"', b'"', b"%", b"%ff", b"%00", b"application/json", b"a/b+json;x"]
)


@given(headers=st.lists(st.tuples(_names, _values), max_size=8), body=st.binary(max_size=20))
def test_any_headers_and_body_are_an_event_or_refused(
    headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    try:
        event = binary(headers, body)
    except InvalidInput:
        return
    assert structured(event.text) == event


@given(mode=st.sampled_from(["structured", "batch"]), body=st.binary(max_size=40))
def test_any_body_is_events_or_refused(mode: Any, body: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        assert len(events_of(mode, [], body)) <= 20


@given(
    authorization=st.binary(max_size=30)
    | st.sampled_from([b"Bearer", b"Bearer ", b"Bearer secre", b"Basic secret", b"secret"]),
    query=st.binary(max_size=30)
    | st.sampled_from([b"access_token=", b"access_token", b"token=secret", b"&" * 99]),
)
def test_nothing_but_a_token_opens_the_endpoint(authorization: bytes, query: bytes) -> None:
    with pytest.raises(Refused):
        authorize({b"authorization": authorization}, query, [b"secret", b"rotated"])


@pytest.mark.parametrize(
    ("authorization", "query"),
    [
        (b"Bearer secret", b""),
        (b"bearer rotated", b""),
        (b"", b"access_token=secret"),
        (b"", b"a=b&access_token=rotate%64"),
        (b"Basic x", b"access_token=secret"),
    ],
)
def test_the_token_stands_in_the_header_or_the_query(authorization: bytes, query: bytes) -> None:
    authorize({b"authorization": authorization}, query, [b"secret", b"rotated"])
