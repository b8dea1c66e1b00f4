import asyncio
import logging
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from hybridjobs.ids import new_id
from hybridjobs.sdk import Context, Handler, PermanentError, RetryLater, handler
from hybridjobs.worker.runner import CANCELLED, Completed, Failure, failure, printable, run


class Silent:
    async def progress(self, done: int, total: int | None, message: str | None) -> None: ...

    async def save_checkpoint(self, text: str) -> None: ...

    async def submit(self, type_: str, payload: str, key: str | None, priority: int | None) -> UUID:
        return new_id()


def context() -> Context:
    return Context(Silent(), job_id=new_id(), type="probe/x", attempt=1, deadline=datetime.now(UTC))


def raising(error: BaseException) -> Handler[Any, Any]:
    @handler("probe/x")
    async def raises(payload: Any, context: Context) -> None:
        raise error

    return raises


class Reply(BaseModel):
    number: int
    ratio: float


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ({"n": 12345678901234567890}, '{"n":12345678901234567890}'),
        ([1.0, 1], "[1.0,1]"),
        (Reply(number=10**20, ratio=2.0), '{"number":100000000000000000000,"ratio":2.0}'),
    ],
)
async def test_what_a_handler_returns_is_its_result(value: object, text: str) -> None:
    @handler("probe/x")
    async def returns(payload: Any, context: Context) -> Any:
        return value

    assert await run(returns, {}, context()) == Completed(text)


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (OSError("away"), Failure("OSError: away")),
        (KeyError(), Failure("KeyError")),
        (PermanentError("no such repository"), Failure("no such repository", permanent=True)),
        (PermanentError(), Failure("PermanentError", permanent=True)),
        (RetryLater(30, "limit"), Failure("limit", retry_after_seconds=30)),
        (
            RetryLater(30),
            Failure("try again in 30 seconds", retry_after_seconds=30),
        ),
        (SystemExit(0), Failure("the handler called exit(0)")),
        (KeyboardInterrupt(), Failure("KeyboardInterrupt")),
        (asyncio.CancelledError(), CANCELLED),
        (
            ExceptionGroup("g", [OSError("a"), ExceptionGroup("h", [PermanentError("b")])]),
            Failure("b", permanent=True),
        ),
        (
            ExceptionGroup("g", [RetryLater(5, "x"), RetryLater(9, "y"), OSError("a")]),
            Failure("y", retry_after_seconds=9),
        ),
        (ExceptionGroup("g", [OSError("first"), OSError("second")]), Failure("OSError: first")),
    ],
)
async def test_what_a_handler_raises_is_a_failure(error: BaseException, end: Failure) -> None:
    assert await run(raising(error), {}, context()) == end


async def test_an_invalid_payload_is_permanent() -> None:
    @handler("probe/x")
    async def typed(payload: Reply, context: Context) -> None: ...

    end = await run(typed, {"number": 1}, context())
    assert end == Failure("invalid payload: /ratio: Field required", permanent=True)


async def test_a_result_without_json_is_permanent() -> None:
    @handler("probe/x")
    async def returns(payload: Any, context: Context) -> Any:
        return {"x": float("nan")}

    end = await run(returns, {}, context())
    assert isinstance(end, Failure)
    assert end.permanent
    assert "the result has no JSON form" in end.error


async def test_a_cancellation_from_outside_is_raised() -> None:
    @handler("probe/x")
    async def waits(payload: Any, context: Context) -> None:
        await asyncio.sleep(3600)

    task = asyncio.create_task(run(waits, {}, context()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_traceback_of_a_surprise_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        await run(raising(OSError("away")), {}, context())
        await run(raising(PermanentError("planned")), {}, context())
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [OSError]


async def test_a_chained_permanent_error_shows_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    error = PermanentError("no such thing")
    error.__cause__ = LookupError("404")
    await run(raising(error), {}, context())
    assert "LookupError: 404" in caplog.text


async def test_the_context_is_closed_after_the_run() -> None:
    kept = []

    @handler("probe/x")
    async def opens(payload: Any, context: Context) -> None:
        kept.append(context.http)
        raise OSError

    await run(opens, {}, context())
    assert kept[0].is_closed


def test_a_message_is_text_that_postgres_holds() -> None:
    assert printable("a\x00b\ud800c") == "a\ufffdb?c"
    assert len(printable("x" * 100_000)) == 4000


def test_an_exception_whose_message_fails_is_still_a_failure() -> None:
    class NastyError(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert failure(NastyError()) == Failure(
        f"{NastyError.__qualname__}: (its message cannot be shown)"
    )
