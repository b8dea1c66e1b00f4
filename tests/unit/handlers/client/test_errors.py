"""Refusals as GitHub words them."""

import json
from typing import Any

import pytest

from hybridjobs.handlers.github.client.errors import (
    Answer,
    EmptyRepositoryError,
    ForbiddenError,
    GoneError,
    LegalError,
    Limited,
    NotFoundError,
    RefusedError,
    TransientError,
    check,
)

NOW = 1_000_000.0
LEFT = {"x-ratelimit-remaining": "4000", "x-ratelimit-reset": str(int(NOW) + 1800)}
NONE_LEFT = LEFT | {"x-ratelimit-remaining": "0"}
SECONDARY = (
    "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
)
ABUSE = "You have triggered an abuse detection mechanism. Please wait a few minutes."
PRIMARY = "API rate limit exceeded for user ID 1."


def answer(status: int, body: Any, headers: dict[str, str]) -> Answer:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return Answer(status, headers, content)


@pytest.mark.parametrize(
    ("status", "message", "headers", "seconds", "secondary"),
    [
        (403, PRIMARY, NONE_LEFT, 1800, False),
        (429, PRIMARY, NONE_LEFT, 1800, False),
        (403, PRIMARY, {}, 60, False),
        (403, PRIMARY, {"x-ratelimit-reset": "soon"}, 60, False),
        (403, PRIMARY, NONE_LEFT | {"x-ratelimit-reset": str(int(NOW) - 5)}, 0, False),
        (403, SECONDARY, LEFT | {"retry-after": "30"}, 30, True),
        (403, SECONDARY, LEFT, 60, True),
        (403, SECONDARY, NONE_LEFT, 60, True),
        (403, ABUSE, LEFT, 60, True),
        (429, SECONDARY, LEFT, 60, True),
        (429, "", {}, 60, True),
        (429, "", {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 60, True),
        (429, "", {"retry-after": "999999999"}, 86_400, True),
    ],
)
def test_a_limit_says_how_long(
    status: int, message: str, headers: dict[str, str], seconds: float, secondary: bool
) -> None:
    with pytest.raises(Limited) as raised:
        check(answer(status, {"message": message}, headers), "/x", NOW)
    assert (raised.value.seconds, raised.value.secondary) == (seconds, secondary)


@pytest.mark.parametrize(
    ("status", "message", "headers", "kind", "advice"),
    [
        (401, "Bad credentials", {}, ForbiddenError, "wrong, expired or revoked"),
        (403, "Resource not accessible by integration", LEFT, ForbiddenError, "give the token"),
        (
            403,
            "Resource protected by organization SAML enforcement.",
            LEFT | {"x-github-sso": "required; url=https://github.example"},
            ForbiddenError,
            "single sign-on",
        ),
        (403, "Repository access blocked", LEFT, LegalError, "has blocked"),
        (404, "Not Found", LEFT, NotFoundError, "no token may see it"),
        (409, "Git Repository is empty.", LEFT, EmptyRepositoryError, "without a commit"),
        (410, "Issues are disabled for this repo", LEFT, GoneError, "switched off"),
        (451, "Repository unavailable due to DMCA takedown.", LEFT, LegalError, "legal reasons"),
        (422, "Validation Failed", LEFT, RefusedError, "Validation Failed"),
    ],
)
def test_a_refusal_says_what_to_do(
    status: int, message: str, headers: dict[str, str], kind: type[RefusedError], advice: str
) -> None:
    body = {"message": message, "documentation_url": "https://docs.github.com/rest"}
    with pytest.raises(RefusedError, match=f"GitHub answers {status} for /x: {message}") as raised:
        check(answer(status, body, headers), "/x", NOW)
    assert type(raised.value) is kind
    assert raised.value.status == status
    assert advice in str(raised.value)


@pytest.mark.parametrize(
    ("status", "body", "timed_out"),
    [
        (500, {"message": "Server Error"}, False),
        (502, "<html><body><h1>502 Bad Gateway</h1></body></html>", True),
        (503, {"message": "We couldn't respond to your request in time. Sorry."}, True),
        (504, "", True),
        (408, {"message": "Request Timeout"}, False),
    ],
)
def test_trouble_is_transient(status: int, body: Any, timed_out: bool) -> None:
    with pytest.raises(TransientError, match=f"GitHub answers {status} for /x") as raised:
        check(answer(status, body, LEFT), "/x", NOW)
    assert raised.value.timed_out is timed_out


@pytest.mark.parametrize("body", ["", "[]", '"text"', '{"message": null}', "\x00" * 5000])
def test_a_refusal_of_any_form_has_a_message(body: str) -> None:
    with pytest.raises(NotFoundError) as raised:
        check(answer(404, body, {}), "/x", NOW)
    assert len(str(raised.value)) < 500
