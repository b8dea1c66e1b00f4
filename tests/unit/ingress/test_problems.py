"""Every error has one answer, in one form."""

import json
from typing import Any

import psycopg
import pytest
from starlette.exceptions import HTTPException

from hybridjobs.errors import (
    AttemptClosed,
    DatabaseUnavailable,
    FieldError,
    InvalidInput,
    PayloadTooLarge,
    UnknownType,
)
from hybridjobs.ingress.problems import Problem, Refused, problem_of, send_problem


@pytest.mark.parametrize(
    ("error", "status", "title", "header"),
    [
        (InvalidInput("x"), 422, "Invalid input", None),
        (InvalidInput("x", status=400), 400, "Invalid input", None),
        (PayloadTooLarge("x"), 413, "Too large", None),
        (UnknownType("a", ["b"]), 422, "Unknown job type", None),
        (Refused(401, "Unauthorized", "x", headers={"A": "b"}), 401, "Unauthorized", (b"A", b"b")),
        (DatabaseUnavailable("x", retry_after=0.2), 503, "Unavailable", (b"retry-after", b"1")),
        (DatabaseUnavailable("x", retry_after=4.1), 503, "Unavailable", (b"retry-after", b"5")),
        (AttemptClosed("job", 1), 409, "Attempt closed", None),
        (psycopg.DataError("x"), 422, "Invalid input", None),
        (HTTPException(404), 404, "Not Found", None),
        (KeyError("secret"), 500, "Internal error", None),
    ],
)
def test_errors_and_their_answers(
    error: Exception, status: int, title: str, header: tuple[bytes, bytes] | None
) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.title) == (status, title)
    assert problem.headers == (() if header is None else (header,))
    assert "secret" not in problem.detail


def test_where_the_database_is_stays_inside() -> None:
    problem = problem_of(DatabaseUnavailable("the database does not answer: host 10.0.0.7 refused"))
    assert problem.detail == "the database does not answer"


def test_the_document_is_that_of_rfc_9457() -> None:
    problem = Problem(422, "Unknown job type", "no \ud800 x", [FieldError("/type", "unknown")])
    assert json.loads(problem.body()) == {
        "type": "https://hybridjobs.dev/problems/unknown-job-type",
        "title": "Unknown job type",
        "status": 422,
        "detail": "no ? x",
        "errors": [{"path": "/type", "message": "unknown"}],
    }


@pytest.mark.parametrize("unread", [True, False])
async def test_a_body_that_is_not_read_ends_the_connection(unread: bool) -> None:
    sent: list[Any] = []
    body = iter([{"body": b"x", "more_body": True}, {"type": "http.disconnect"}])

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return next(body)

    await send_problem(send, Problem(413, "T", "d"), unread=receive if unread else None)
    assert ((b"connection", b"close") in sent[0]["headers"]) is unread
    assert len(list(body)) == (0 if unread else 2)
    assert (b"content-type", b"application/problem+json") in sent[0]["headers"]
