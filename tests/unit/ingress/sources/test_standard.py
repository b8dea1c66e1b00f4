"""Standard Webhooks' signatures, whatever the headers hold."""

import hmac
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from hybridjobs.errors import ConfigurationError, InvalidInput
from hybridjobs.ingress.problems import Refused
from hybridjobs.ingress.sources.standard import event_type, signing_keys, verified_id

KEY = b"0123456789abcdef01234567"
NOW = 1_764_000_000.0
BODY = b'{"type":"user.created"}'


def signature(
    key: bytes = KEY, id_: str = "msg_1", at: int = int(NOW), body: bytes = BODY
) -> bytes:
    digest = hmac.digest(key, b"%s.%d.%s" % (id_.encode(), at, body), "sha256")
    return b"v1," + b64encode(digest)


def headers(signatures: bytes, *, id_: bytes = b"msg_1", at: bytes = b"") -> dict[bytes, bytes]:
    return {
        b"webhook-id": id_,
        b"webhook-timestamp": at or b"%d" % NOW,
        b"webhook-signature": signatures,
    }


@pytest.mark.parametrize("offset", [-300, 0, 300])
def test_a_signature_is_good_for_five_minutes_both_ways(offset: int) -> None:
    at = int(NOW) + offset
    given = headers(signature(at=at), at=b"%d" % at)
    assert verified_id(given, BODY, [b"another", KEY], now=NOW) == "msg_1"


@pytest.mark.parametrize("offset", [-301, 301, -(10**9)])
def test_an_older_or_later_one_is_refused(offset: int) -> None:
    at = int(NOW) + offset
    with pytest.raises(Refused, match="300 s"):
        verified_id(headers(signature(at=at), at=b"%d" % at), BODY, [KEY], now=NOW)


def test_one_good_signature_among_others_is_enough() -> None:
    signatures = b" ".join((b"v1a,abc", b"v1,", signature(b"old"), signature(), b""))
    assert verified_id(headers(signatures), BODY, [KEY], now=NOW) == "msg_1"


@pytest.mark.parametrize(
    ("signatures", "detail"),
    [
        (
            b"v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
            "v1a",
        ),
        (b"v1a,a v1a,b", "v1a"),
        (b"v1a,a v1,b", "does not fit"),
        (b"v1a", "does not fit"),
        (b"v2,a", "does not fit"),
        (b"", "is missing"),
    ],
)
def test_asymmetric_signatures_are_refused_by_their_name(signatures: bytes, detail: str) -> None:
    with pytest.raises(Refused, match=detail) as caught:
        verified_id(headers(signatures), BODY, [KEY], now=NOW)
    assert caught.value.status == 401


def test_svix_has_names_of_its_own() -> None:
    given = {name.replace(b"webhook-", b"svix-"): v for name, v in headers(signature()).items()}
    assert verified_id(given, BODY, [KEY], now=NOW) == "msg_1"
    with pytest.raises(InvalidInput, match="Webhook-Timestamp"):
        verified_id({**given, b"webhook-id": b"msg_1"}, BODY, [KEY], now=NOW)


def test_an_id_may_not_hold_what_separates_the_signed_parts() -> None:
    body = b'{"a":1}'
    # The same signed bytes as those of the message `msg` with another body.
    given = headers(signature(id_="msg.1", body=body), id_=b"msg.1")
    with pytest.raises(InvalidInput, match="Webhook-Id"):
        verified_id(given, body, [KEY], now=NOW)


_noise = st.binary(max_size=60) | st.sampled_from(
    [b"", b"v1,", b"v1a,x", b"v1", b" ", signature(b"no"), signature()[:-1], signature()[3:]]
)


@given(
    given=st.dictionaries(
        st.sampled_from(
            [
                b"webhook-id",
                b"webhook-timestamp",
                b"webhook-signature",
                b"svix-id",
                b"svix-timestamp",
                b"svix-signature",
            ]
        ),
        st.lists(_noise, min_size=1, max_size=4).map(b" ".join)
        | st.sampled_from([b"msg_1", b"%d" % NOW, b"9" * 12, b"\xd9\xa1", b"-1"]),
    ),
    body=st.binary(max_size=30) | st.just(BODY),
)
def test_nothing_but_the_key_makes_a_signature(given: dict[bytes, bytes], body: bytes) -> None:
    with pytest.raises((InvalidInput, Refused)):
        verified_id(given, body, [KEY], now=NOW)


@given(data=st.data())
def test_one_bit_changed_anywhere_is_refused(data: st.DataObject) -> None:
    parts = {**headers(signature()), b"body": BODY}
    name = data.draw(st.sampled_from(sorted(parts)))
    bit = data.draw(st.integers(0, len(parts[name]) * 8 - 1))
    changed = bytearray(parts[name])
    changed[bit // 8] ^= 1 << bit % 8
    parts[name] = bytes(changed)
    body = parts.pop(b"body")
    with pytest.raises((InvalidInput, Refused)):
        verified_id(parts, body, [KEY], now=NOW)


def test_secrets_are_base64_behind_whsec_and_text_otherwise() -> None:
    encoded = b64encode(KEY).decode()
    unpadded = b64encode(b"12345").decode().rstrip("=")
    assert signing_keys("a", SecretStr(f"whsec_{encoded}, plain text,whsec_{unpadded}")) == (
        KEY,
        b"plain text",
        b"12345",
    )


@pytest.mark.parametrize(
    "secret", ["", " , ", "whsec_", "whsec_!", "whsec_a", "whpk_abc", "ok,whsec_"]
)
def test_a_secret_that_cannot_be_one_ends_the_start(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="STANDARD_WEBHOOK_SECRETS: the secret of acme"):
        signing_keys("acme", SecretStr(secret))


@pytest.mark.parametrize("value", [None, 1, "", "a b", "a\n", "x" * 191, [], True])
def test_a_type_that_names_no_event(value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        event_type({"type": value})
    assert [each.path for each in caught.value.errors] == ["/type"]
