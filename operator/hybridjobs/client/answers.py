"""What the API's answers that are no success mean to a client."""

import httpx

from hybridjobs import codec
from hybridjobs.errors import ConfigurationError, FieldError, InvalidInput, Unavailable

_RETRY_AFTER_SECONDS = 5.0
_BUSY = frozenset((408, 429, 500, 502, 503, 504))
_SHOWN = 200


def error_of(response: httpx.Response) -> InvalidInput | Unavailable | ConfigurationError:
    """The error that an answer is; its body has been read.

    ConfigurationError for one below 400, which is not the API's: the address leads elsewhere.
    """
    if response.status_code < 400:
        return _elsewhere(response)
    try:
        problem = codec.loads(response.text)
        detail = problem.get("detail") or problem.get("title")
        errors = [FieldError(each["path"], each["message"]) for each in problem.get("errors", ())]
    except (ValueError, AttributeError, KeyError, TypeError):
        detail, errors = None, []
    shown = " ".join((f"HTTP {response.status_code}:", *response.text[:_SHOWN].split()))
    detail = detail or shown.rstrip(":")
    if response.status_code in _BUSY:
        after = response.headers.get("Retry-After", "")
        seconds = float(after) if after.isdecimal() else _RETRY_AFTER_SECONDS
        return Unavailable(detail, retry_after=seconds)
    return InvalidInput(detail, status=response.status_code, errors=errors)


def _elsewhere(response: httpx.Response) -> ConfigurationError:
    if response.has_redirect_location:
        there = response.headers["Location"]
        return ConfigurationError(
            f"{response.url} leads on to {there}, and is not followed: give the API's own address"
        )
    kind = response.headers.get("Content-Type", "no type")
    return ConfigurationError(
        f"at {response.url} is not the API: it answers {response.status_code} with {kind}"
    )
