"""The guard before the SDK: what it lets through was signed by one of our keys, and lately."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs.errors import ConfigurationError
from hybridjobs.ingress.inngest.signature import WINDOW_SECONDS, fault, secret_of, sign

NOW = 1_780_000_000.5
SECRET = b"0123456789abcdef"
OTHER = b"fedcba9876543210"
BODY = b'{"ctx":{}}'
GOOD = sign(SECRET, BODY, now=NOW).encode()


def test_the_signature_is_inngest_s() -> None:
    stamp = str(int(NOW))
    digest = hmac.new(SECRET, BODY + stamp.encode(), hashlib.sha256).hexdigest()
    assert sign(SECRET, BODY, now=NOW) == f"t={stamp}&s={digest}"


@given(st.binary(max_size=200), st.floats(0, 9e11), st.integers(-300, 300))
def test_what_was_signed_within_the_window_passes(body: bytes, now: float, ago: int) -> None:
    if not 0 <= int(now) - ago < 10**12:
        return
    header = sign(SECRET, body, now=int(now) - ago).encode()
    assert fault([header], body, [OTHER, SECRET], now=int(now)) is None
    assert fault([header], body, [SECRET], now=int(now)) is None


@pytest.mark.parametrize("seconds", [-86_400, -WINDOW_SECONDS - 1, WINDOW_SECONDS + 1, 3600])
def test_outside_of_the_window_it_does_not(seconds: int) -> None:
    header = sign(SECRET, BODY, now=NOW + seconds).encode()
    assert "seconds from our time" in (fault([header], BODY, [SECRET], now=NOW) or "")


@given(st.binary(max_size=120))
def test_no_header_that_we_did_not_sign_passes(header: bytes) -> None:
    assert fault([header], BODY, [SECRET], now=NOW) is not None


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_no_changed_byte_of_the_header_passes(place: int, value: int) -> None:
    changed = GOOD[:place] + bytes([value]) + GOOD[place + 1 :]
    assert (fault([changed], BODY, [SECRET], now=NOW) is None) == (changed == GOOD)


@given(st.binary(max_size=40), st.binary(min_size=1, max_size=40))
def test_the_time_is_no_part_of_the_body(body: bytes, more: bytes) -> None:
    header = sign(SECRET, body, now=NOW).encode()
    assert fault([header], body + more, [SECRET], now=NOW) is not None


def test_a_digit_moved_from_the_time_to_the_body_is_refused() -> None:
    # The digest is over body and time with nothing between them.
    stamp = str(int(NOW))
    digest = hmac.new(SECRET, BODY + stamp.encode(), hashlib.sha256).hexdigest()
    moved = f"t={stamp[1:]}&s={digest}".encode()
    assert fault([moved], BODY + stamp[:1].encode(), [SECRET], now=NOW) is not None


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [GOOD, GOOD],
        [b""],
        [GOOD + b"&" + GOOD],
        [GOOD + b"&s=" + b"0" * 64],
        [GOOD + b"&t=1"],
        [GOOD.split(b"&")[0]],
        [GOOD.split(b"&")[1]],  # without a time, the SDK would verify over the body alone
        [b"t=&" + GOOD.split(b"&")[1]],
        [GOOD.replace(b"t=", b"t=+")],
        [GOOD.replace(b"t=", b"t=%31")],
        [b" " + GOOD],
        [GOOD.upper()],
        [GOOD.replace(b"t=", b"%74=")],
        [GOOD.replace(b"t=1", "t=\N{FULLWIDTH DIGIT ONE}".encode())],
    ],
)
def test_a_header_of_another_form_is_refused(headers: list[bytes]) -> None:
    assert fault(headers, BODY, [SECRET], now=NOW) is not None


def test_either_order_of_time_and_signature_will_do() -> None:
    time, digest = GOOD.split(b"&")
    assert fault([digest + b"&" + time], BODY, [SECRET], now=NOW) is None


def test_a_signature_over_the_body_alone_is_refused() -> None:
    digest = hmac.new(SECRET, BODY, hashlib.sha256).hexdigest()
    for header in (f"s={digest}", f"t={int(NOW)}&s={digest}"):
        assert fault([header.encode()], BODY, [SECRET], now=NOW) is not None


def test_without_a_secret_nothing_passes() -> None:
    assert fault([GOOD], BODY, [], now=NOW) is not None


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        ("signkey-prod-0123abcd", b"0123abcd"),
        ("signkey-branch-0123abcd", b"0123abcd"),
        ("0123ABCD", b"0123ABCD"),
    ],
)
def test_a_key_signs_without_its_prefix(key: str, secret: bytes) -> None:
    assert secret_of(key, variable="X") == secret


@pytest.mark.parametrize("key", ["signkey-prod-", "signkey-prod-012", "secret", "signkey-a-b-01"])
def test_what_is_no_key_is_named_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        secret_of(key, variable="HYBRIDJOBS_INNGEST_SIGNING_KEY")
    assert "HYBRIDJOBS_INNGEST_SIGNING_KEY" in str(raised.value)
    assert key not in str(raised.value)
