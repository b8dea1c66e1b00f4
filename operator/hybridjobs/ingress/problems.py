"""The one form of an error answer, `application/problem+json` (RFC 9457), and how errors map to it.

A problem's `type` is PROBLEM_BASE and its title in kebab case; docs/reference/http.md lists them.
"""

import asyncio
import math
import secrets
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import psycopg
import structlog
from starlette.exceptions import HTTPException
from starlette.types import Receive, Send

from hybridjobs import codec
from hybridjobs.errors import (
    AttemptClosed,
    BrokenPayloadSchema,
    FieldError,
    HybridJobsError,
    InvalidInput,
    Unavailable,
)

log = structlog.get_logger(__name__)

PROBLEM_BASE = "https://hybridjobs.dev/problems/"
MEDIA_TYPE = b"application/problem+json"

# How much of a body that is not wanted is taken, and for how long.
_UNREAD_BYTES = 16 << 20
_UNREAD_SECONDS = 5.0


class Refused(HybridJobsError):  # noqa: N818 - named for what the listener did
    """The listener refuses the request for a reason that only HTTP knows."""

    def __init__(
        self, status: int, title: str, detail: str, *, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = headers or {}


class ClientGone(HybridJobsError):  # noqa: N818 - a state, named as one
    """The client hung up before its request was whole; nobody waits for an answer."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error answer: RFC 9457's members, `errors` by JSON pointer, and headers to go with it."""

    status: int
    title: str
    detail: str
    errors: Sequence[FieldError] = ()
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def body(self) -> bytes:
        """The JSON document."""
        document: dict[str, object] = {
            "type": PROBLEM_BASE + self.title.lower().replace(" ", "-"),
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = [
                {"path": error.path, "message": error.message} for error in self.errors
            ]
        # A lone surrogate, as in a member name of a hostile body, has no UTF-8.
        return codec.dumps(document).encode("utf-8", "replace")


def problem_of(error: Exception) -> Problem:
    """The answer to a request that ended in `error`; one that nobody foresaw is logged.

    Neither the answer nor the log holds anything of the request's body or headers.
    """
    match error:
        case InvalidInput():
            return Problem(error.status, error.title, error.detail, error.errors)
        case Refused():
            headers = tuple((k.encode(), v.encode()) for k, v in error.headers.items())
            return Problem(error.status, error.title, error.detail, headers=headers)
        case Unavailable():
            retry_after = str(max(1, math.ceil(error.retry_after))).encode()
            return Problem(
                503, "Unavailable", _public(error), headers=((b"retry-after", retry_after),)
            )
        case BrokenPayloadSchema():
            return Problem(500, "Broken job type", str(error))
        case AttemptClosed():
            return Problem(409, "Attempt closed", str(error))
        case psycopg.DataError():
            message = error.diag.message_primary or "the value has no place in Postgres"
            return Problem(422, "Invalid input", f"the database refuses this: {message}")
        case HTTPException():
            headers = tuple((k.encode(), v.encode()) for k, v in (error.headers or {}).items())
            phrase = HTTPStatus(error.status_code).phrase
            allowed = (error.headers or {}).get("Allow")
            detail = f"this takes {allowed} only" if allowed else error.detail
            return Problem(error.status_code, phrase, detail, headers=headers)
        case _:
            return _unforeseen(error)


async def send_problem(send: Send, problem: Problem, *, unread: Receive | None = None) -> None:
    """Answer with the problem, and close the connection when the rest of a body is `unread`."""
    body = problem.body()
    headers = [
        (b"content-type", MEDIA_TYPE),
        (b"content-length", str(len(body)).encode()),
        *problem.headers,
    ]
    if unread is not None:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    if unread is not None:
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await _let_go(unread)
        body = b""
    await send({"type": "http.response.body", "body": body})


async def _let_go(unread: Receive) -> None:
    """Take what is still on its way: from a connection closed before, the answer is not read.

    A client may send all of a request before it looks for the answer, and is reset for the rest.
    """
    size, more = 0, True
    with suppress(TimeoutError):
        async with asyncio.timeout(_UNREAD_SECONDS):
            while more and size < _UNREAD_BYTES:
                message = await unread()
                more = message.get("more_body", False)
                size += len(message.get("body", b""))


def _public(error: Unavailable) -> str:
    # Behind the colon stands what the driver said, with host and port.
    return error.detail.partition(":")[0]


def _unforeseen(error: Exception) -> Problem:
    incident = secrets.token_hex(8)
    frames = [
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    # No message: it may quote the payload, as Postgres and pydantic do.
    log.error(
        "request failed",
        incident=incident,
        error=f"{type(error).__module__}.{type(error).__qualname__}",
        sqlstate=getattr(error, "sqlstate", None),
        frames=frames,
    )
    return Problem(500, "Internal error", f"something failed here; the log names it {incident}")
