"""Settings: a wrong one is named, a secret one never shown."""

import pytest

from hybridjobs.errors import ConfigurationError
from hybridjobs.settings import IngressSettings

VARIABLE = "HYBRIDJOBS_STANDARD_WEBHOOK_SECRETS"


@pytest.fixture(autouse=True)
def _database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDJOBS_DATABASE_URL", "postgresql://localhost/jobs")


@pytest.mark.parametrize("value", ["", "{}"])
def test_no_source_of_standard_webhooks(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert IngressSettings.load().standard_webhook_secrets == {}


def test_secrets_by_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, '{"acme": "hidden", "b-2": "x,y"}')
    settings = IngressSettings.load()
    assert set(settings.standard_webhook_secrets) == {"acme", "b-2"}
    assert "hidden" not in repr(settings)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("hidden", VARIABLE),
        ('["hidden"]', VARIABLE),
        ('{"acme": "hidden"', VARIABLE),
        ("[" * 100_000, VARIABLE),
        ('{"acme": 5}', f"{VARIABLE}/acme"),
        ('{"acme": {"a": "hidden"}}', f"{VARIABLE}/acme"),
        ('{"github": "hidden"}', f"{VARIABLE}/github"),
        ('{"Acme/x": "hidden"}', f"{VARIABLE}/Acme~1x"),
    ],
)
def test_a_wrong_one_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, value: str, named: str
) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ConfigurationError) as caught:
        IngressSettings.load()
    assert named in str(caught.value)
    assert "hidden" not in str(caught.value)
