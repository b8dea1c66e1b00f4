"""Inngest's settings: closed, verified, or in development on purpose."""

from typing import Any

import pytest

from hybridjobs.errors import ConfigurationError
from hybridjobs.ingress.inngest.config import InngestConfig
from hybridjobs.settings import IngressSettings

KEY = "signkey-test-0123456789abcdef"


def settings(**changes: Any) -> IngressSettings:
    return IngressSettings(**{"database_url": "postgresql://nowhere", **changes})


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INNGEST_DEV", raising=False)


def test_without_a_signing_key_inngest_is_not_configured() -> None:
    assert InngestConfig.of(settings()) is None
    assert InngestConfig.of(settings(inngest_signing_key=" ")) is None


def test_both_keys_may_have_signed() -> None:
    other = "signkey-test-fedcba9876543210"
    config = InngestConfig.of(settings(inngest_signing_key=KEY, inngest_signing_key_fallback=other))
    assert config is not None
    assert config.secrets == (b"0123456789abcdef", b"fedcba9876543210")
    assert KEY not in repr(config)


def test_other_sources_have_their_own_events() -> None:
    config = InngestConfig.of(
        settings(inngest_signing_key=KEY, standard_webhook_secrets={"acme": "secret"})
    )
    assert config is not None
    assert config.others == {"acme", "github"}


@pytest.mark.parametrize("value", ["1", "true", "http://localhost:8288"])
def test_development_by_the_sdk_s_variable_alone_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("INNGEST_DEV", value)
    with pytest.raises(ConfigurationError, match="HYBRIDJOBS_INNGEST_DEV=true"):
        InngestConfig.of(settings(inngest_signing_key=KEY))


@pytest.mark.parametrize("value", ["", "0", "false", " False "])
def test_the_variable_may_say_no(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("INNGEST_DEV", value)
    config = InngestConfig.of(settings(inngest_signing_key=KEY))
    assert config is not None
    assert not config.dev


def test_development_on_purpose_verifies_nothing() -> None:
    config = InngestConfig.of(settings(inngest_dev=True, inngest_signing_key=KEY))
    assert config is not None
    assert (config.dev, config.secrets, config.can_send) == (True, (), True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inngest_signing_key", "nonsense"),
        ("inngest_signing_key_fallback", "signkey-test-xyz"),
    ],
)
def test_a_wrong_key_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"HYBRIDJOBS_{name.upper()} "):
        InngestConfig.of(settings(**{"inngest_signing_key": KEY, name: value}))


@pytest.mark.parametrize("origin", ["hooks.example.com", "https://a/b", "https://u@h", "ftp://a"])
def test_an_origin_is_a_scheme_and_a_host(origin: str) -> None:
    with pytest.raises(ValueError, match="inngest_serve_origin"):
        settings(inngest_serve_origin=origin)
