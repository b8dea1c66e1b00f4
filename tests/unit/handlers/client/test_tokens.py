import pytest

from hybridjobs.handlers.github.client.installations import seal, unseal
from hybridjobs.handlers.github.client.rest import next_cursor
from hybridjobs.handlers.github.client.tokens import (
    Access,
    AppKey,
    Repository,
    app_key,
    personal_tokens,
)
from hybridjobs.sdk import PermanentError

APP = AppKey("7", "-----BEGIN KEY-----")
HERE = Repository("Octo-Org", "Shop")


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("", []),
        ("one", ["one"]),
        ("one,two", ["one", "two"]),
        (" one\ntwo ,\r\n,one\n", ["one", "two"]),
    ],
)
def test_tokens_are_separated_by_commas_and_lines(text: str, secrets: list[str]) -> None:
    tokens = personal_tokens(text)
    assert [each.secret for each in tokens] == secrets
    assert len({each.digest for each in tokens}) == len(secrets)


def test_a_token_does_not_show_its_secret() -> None:
    (token,) = personal_tokens("ghp_secret")
    assert "ghp_secret" not in repr(token)
    assert b"ghp_secret" not in token.digest
    assert "BEGIN" not in repr(APP)


def test_odd_characters_are_refused_without_showing_them() -> None:
    with pytest.raises(PermanentError, match="GITHUB_TOKEN has characters") as raised:
        personal_tokens("ghp_söcret")
    assert "cret" not in str(raised.value)


def test_an_app_needs_both_of_its_settings() -> None:
    assert app_key({}) is None
    key = app_key({"GITHUB_APP_ID": " 7 ", "GITHUB_APP_PRIVATE_KEY": "a\\nb\n"})
    assert key == AppKey("7", "a\nb")
    with pytest.raises(PermanentError, match="GITHUB_APP_PRIVATE_KEY is not set"):
        app_key({"GITHUB_APP_ID": "7"})
    with pytest.raises(PermanentError, match="GITHUB_APP_ID is not set"):
        app_key({"GITHUB_APP_PRIVATE_KEY": "a"})


def test_a_sealed_token_is_opened_by_its_apps_key_alone() -> None:
    sealed = seal(APP, "octo-org", 42, "ghs_secret", 1e9)
    assert b"ghs_secret" not in sealed
    assert unseal(APP, "octo-org", sealed) == (42, "ghs_secret", 1e9)
    assert unseal(AppKey("7", "another"), "octo-org", sealed) is None
    assert unseal(AppKey("8", APP.private_key), "octo-org", sealed) is None
    assert unseal(APP, "other-org", sealed) is None
    assert unseal(APP, "octo-org", sealed[:-1]) is None
    assert unseal(APP, "octo-org", b"") is None


def test_a_token_is_left_out_where_another_sees_more() -> None:
    access = Access()
    one, two = personal_tokens("one,two")
    access.is_blind({one.digest}, HERE)
    access.is_blind({one.digest}, None)
    assert not access.serves(one, Repository("octo-org", "shop"))
    assert access.serves(one, Repository("octo-org", "other"))
    assert access.serves(one, None)
    access.is_bad(two)
    assert not access.serves(two, None)


@pytest.mark.parametrize(
    ("link", "cursor"),
    [
        ("", None),
        ('<https://api.github.com/x?page=1>; rel="prev"', None),
        ('<https://api.github.com/x?per_page=100&page=3>; rel="next"', "per_page=100&page=3"),
        (
            '<https://evil.example/y?after=abc%3D&x=1>; rel="next", <z>; rel="last"',
            "after=abc%3D&x=1",
        ),
        ("<https://api.github.com/x>; rel=next", None),
        ("nonsense", None),
    ],
)
def test_of_a_link_the_query_alone_is_followed(link: str, cursor: str | None) -> None:
    assert next_cursor({"link": link} if link else {}) == cursor
