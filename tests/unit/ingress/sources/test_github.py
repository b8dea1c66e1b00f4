"""The names of an event, as a full parse would give them."""

import contextlib
import hmac
import json
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs.errors import InvalidInput
from hybridjobs.ingress.problems import Refused
from hybridjobs.ingress.sources.delivery import VISIBLE, header
from hybridjobs.ingress.sources.github import _EVENT, _names, _payload, verify
from tests.recorded import deliveries


def _expected(event: str, document: dict[str, Any]) -> tuple[str, ...]:
    action = document.get("action")
    if isinstance(action, str):
        return (f"github/{event}", f"github/{event}.{action}")
    return (f"github/{event}",)


def test_every_recorded_delivery() -> None:
    for delivery in deliveries():
        names = _names(delivery.event, delivery.payload)
        assert names == _expected(delivery.event, delivery.document)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["action", "a", "b"]), inner),
    max_leaves=8,
)


@given(
    document=st.dictionaries(st.sampled_from(["action", "a", "b", "c"]), _values),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " : ")]),
)
def test_any_object_however_it_is_written(
    document: dict[str, Any], separators: tuple[str, str]
) -> None:
    # GitHub's integers fit into 64 bits; orjson reads larger ones as floats, which no name shows.
    payload = json.dumps(document, separators=separators).encode()
    assert _names("e", payload) == _expected("e", document)


FORM = b"application/x-www-form-urlencoded"


def test_every_recorded_delivery_as_a_form() -> None:
    for delivery in deliveries():
        form = urlencode({"a": "b", "payload": delivery.payload}).encode()
        assert _payload(form, FORM) == delivery.payload


@given(payload=st.binary(max_size=40), percent_encoded=st.booleans())
def test_a_form_gives_back_what_was_put_in(payload: bytes, percent_encoded: bool) -> None:
    encoded = quote(payload) if percent_encoded else quote_plus(payload)
    assert _payload(f"payload={encoded}&payload=2".encode(), FORM + b"; charset=utf-8") == payload


@given(
    body=st.binary(max_size=40) | st.sampled_from([b"payload", b"&" * 99 + b"payload=1", b""]),
    content_type=st.binary(max_size=40) | st.sampled_from([FORM, b"text/json", b"", FORM + b";"]),
)
def test_any_body_of_any_type_is_a_payload_or_refused(body: bytes, content_type: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        assert isinstance(_payload(body, content_type), bytes)


@given(value=st.binary(max_size=70))
def test_any_header_is_what_it_should_be_or_refused(value: bytes) -> None:
    for pattern in (_EVENT, VISIBLE):
        with contextlib.suppress(InvalidInput):
            assert header({b"x-a": value}, b"x-a", pattern).encode() == value
            assert value.strip() == value != b""


BODY = b'{"action":"opened"}'
SIGNATURE = b"sha256=" + hmac.digest(b"secret", BODY, "sha256").hex().encode()


def test_a_signature_by_any_of_the_secrets_is_good() -> None:
    verify(BODY, SIGNATURE, [b"another", b"secret"])


@given(
    body=st.binary(max_size=30) | st.just(BODY),
    signature=st.binary(max_size=80)
    | st.sampled_from([b"sha256=", SIGNATURE[:-1], SIGNATURE + b" ", SIGNATURE.upper()]),
)
def test_nothing_but_a_secret_makes_a_signature(body: bytes, signature: bytes) -> None:
    with pytest.raises(Refused):
        verify(body, signature, [b"another", b"secret"])


@given(bit=st.integers(0, len(SIGNATURE) * 8 - 1))
def test_one_bit_changed_in_a_signature_is_refused(bit: int) -> None:
    changed = bytearray(SIGNATURE)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Refused):
        verify(BODY, bytes(changed), [b"secret"])
