"""Signatures, by a library that is not ours."""

import time
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from svix.webhooks import Webhook, WebhookVerificationError

from hybridjobs import codec
from hybridjobs.callbacks.secrets import Secrets
from hybridjobs.callbacks.signature import signed_headers
from hybridjobs.errors import ConfigurationError


@given(st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=3), st.text(max_size=50))
def test_each_key_of_several_verifies(keys: list[bytes], text: str) -> None:
    body = codec.dumps({"text": text}).encode("utf-8", "replace")
    headers = signed_headers("msg", int(time.time()), body, keys)
    for key in keys:
        Webhook(key).verify(body, headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(key).verify(body + b" ", headers)


def test_secrets_are_read_anew_by_name(tmp_path: Path) -> None:
    one, two = (b64encode(bytes([n]) * 32).decode() for n in (1, 2))
    (tmp_path / "default").write_text(f"whsec_{one}\n")
    secrets = Secrets(str(tmp_path))
    assert secrets.keys("default") == [b"\1" * 32]
    (tmp_path / "default").write_text(f"whsec_{two},{one}")
    assert secrets.keys("default") == [b"\2" * 32, b"\1" * 32]


@pytest.mark.parametrize(
    "name", ["../default", "/etc/passwd", "", ".", "..", "A", "a/b", "a" * 300]
)
def test_a_name_leads_out_of_the_folder_nowhere(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "default").write_text("whsec_" + b64encode(b"x" * 32).decode())
    with pytest.raises(ConfigurationError, match="is no name"):
        Secrets(str(folder)).keys(name)


def test_without_a_folder_the_setting_is_named() -> None:
    with pytest.raises(ConfigurationError, match="HYBRIDJOBS_CALLBACK_SECRETS_DIR"):
        Secrets(None).keys("default")
