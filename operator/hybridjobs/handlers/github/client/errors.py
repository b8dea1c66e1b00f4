"""What GitHub answers instead of what was asked for.

PermanentError
 └─ RefusedError             GitHub will not, whoever asks again
     ├─ NotFoundError        404: no such thing, or hidden from every token
     ├─ ForbiddenError       401, 403: every token lacks the right
     ├─ EmptyRepositoryError 409: nothing was ever pushed
     ├─ GoneError            410: deleted, or issues are switched off
     └─ LegalError           451, or 403 for the repository as such: blocked by GitHub
TransientError               GitHub or the way to it is in trouble
Limited                      a rate limit of one token; never leaves this package

Sources: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api,
…/rest/using-the-rest-api/troubleshooting-the-rest-api
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from hybridjobs.sdk import PermanentError

# Where a limit names no end: https://docs.github.com/en/rest/using-the-rest-api/
# best-practices-for-using-the-rest-api#handle-rate-limit-errors-appropriately
UNNAMED_LIMIT_SECONDS = 60.0
_MAX_LIMIT_SECONDS = 86_400.0
_MAX_MESSAGE = 300
_TIMEOUTS = frozenset({502, 504})


class TransientError(Exception):
    """GitHub or the way to it is in trouble; it may be over soon.

    `timed_out`: asking for less at once may help.
    """

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class RefusedError(PermanentError):
    """GitHub refuses, with this status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class NotFoundError(RefusedError):
    """Nothing there, or nothing that a token may see."""


class ForbiddenError(RefusedError):
    """The tokens may not do this."""


class NamelessError(ForbiddenError):
    """Nobody is answered here without a token, and there is none."""


class EmptyRepositoryError(RefusedError):
    """A repository without a commit."""


class GoneError(RefusedError):
    """It was there."""


class LegalError(RefusedError):
    """Taken down, or blocked, by GitHub."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; header names are in lower case. `kept`: of before, and GitHub said 304."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    kept: bool = False


class Limited(Exception):  # noqa: N818 - a turn of events between modules
    """A rate limit is reached: the primary one of a resource, or a secondary one of the token."""

    def __init__(self, message: str, seconds: float, *, secondary: bool) -> None:
        super().__init__(message)
        self.seconds = min(max(seconds, 0.0), _MAX_LIMIT_SECONDS)
        self.secondary = secondary


def said(content: bytes) -> str:
    """GitHub's message in an error's body, or the beginning of what else is there."""
    try:
        message = json.loads(content)["message"]
    except (ValueError, TypeError, KeyError):
        message = content[: 4 * _MAX_MESSAGE].decode(errors="replace").strip()
    return str(message)[:_MAX_MESSAGE]


def limited(answer: Answer, message: str, now: float) -> Limited | None:
    """The rate limit that an error tells of; None: it is about something else.

    Secondary limits ("abuse detection" of old) come as 403 or 429, with or without Retry-After, and
    while x-ratelimit-remaining is anything.
    """
    lower = message.lower()
    secondary = "secondary rate" in lower or "abuse detection" in lower
    if answer.status not in (403, 429) and not (secondary and answer.status == 200):
        return None
    if secondary or "retry-after" in answer.headers:
        # A date is allowed there too; GitHub sends none.
        seconds = whole(answer.headers.get("retry-after"))
        return Limited(
            message, UNNAMED_LIMIT_SECONDS if seconds is None else seconds, secondary=True
        )
    if answer.headers.get("x-ratelimit-remaining") == "0" or "rate limit exceeded" in lower:
        return Limited(message, until_reset(answer.headers, now), secondary=False)
    if answer.status == 429:
        return Limited(message, UNNAMED_LIMIT_SECONDS, secondary=True)
    return None


def until_reset(headers: Mapping[str, str], now: float) -> float:
    """Seconds until the window ends that the headers name."""
    reset = whole(headers.get("x-ratelimit-reset"))
    return UNNAMED_LIMIT_SECONDS if reset is None else reset - now


def check(answer: Answer, what: str, now: float) -> None:
    """Raise what an error status means; `what` was asked for."""
    status = answer.status
    if status < 300:
        return
    message = said(answer.content)
    if (limit := limited(answer, message, now)) is not None:
        raise limit
    if status >= 500 or status == 408:
        raise TransientError(
            f"GitHub answers {status} for {what}: {message}",
            timed_out=status in _TIMEOUTS or "in time" in message,
        )
    raise refusal(status, f"GitHub answers {status} for {what}: {message}", answer.headers)


def refusal(status: int, text: str, headers: Mapping[str, str]) -> RefusedError:
    """The error of a status, or of what stands for it in GraphQL; `text` with what may help."""
    kind, advice = _KINDS.get(status, (RefusedError, ""))
    if status == 403 and "repository access blocked" in text.lower():
        kind, advice = LegalError, "GitHub has blocked the repository"
    elif status == 403 and "x-github-sso" in headers:
        advice = "authorize the token for the organisation's single sign-on"
    return kind(f"{text} ({advice})" if advice else text, status)


_KINDS: dict[int, tuple[type[RefusedError], str]] = {
    401: (ForbiddenError, "GITHUB_TOKEN or the App's key is wrong, expired or revoked"),
    403: (ForbiddenError, "give the token the right to read it"),
    404: (NotFoundError, "it does not exist, or no token may see it"),
    409: (EmptyRepositoryError, "a repository without a commit has none"),
    410: (GoneError, "deleted, or switched off in the repository"),
    451: (LegalError, "taken down for legal reasons"),
}


def whole(text: str | None) -> int | None:
    """The number in a header; None where there is none."""
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
