"""Bodies within bounds, answers in full, errors as problems."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from hybridjobs.errors import PayloadTooLarge, Unavailable
from hybridjobs.ingress import asgi
from hybridjobs.ingress.asgi import Listener, Place, Places, read_body, respond, traceparent
from hybridjobs.ingress.problems import ClientGone


def _receive(*messages: Message) -> Receive:
    rest = iter(messages)

    async def receive() -> Message:
        return next(rest)

    return receive


def _part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def _scope(**headers: str) -> Scope:
    pairs = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": pairs}
    return {**scope, asgi.PLACE: Place(Places(10))}


async def test_pieces_are_put_together() -> None:
    receive = _receive(_part(b"ab"), _part(b""), _part(b"c", more=False))
    assert await read_body(_scope(), receive, limit_bytes=3) == b"abc"


async def test_a_declared_length_over_the_limit_reads_nothing() -> None:
    with pytest.raises(PayloadTooLarge):
        await read_body(_scope(content_length="4"), _receive(), limit_bytes=3)


async def test_an_undeclared_length_is_stopped_at_the_limit() -> None:
    with pytest.raises(PayloadTooLarge):
        await read_body(_scope(), _receive(_part(b"ab"), _part(b"cd")), limit_bytes=3)


async def test_bodies_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "MAX_HELD_BYTES", 10)
    monkeypatch.setattr(asgi, "_held_bytes", 0)  # other tests' requests have no end
    resume = asyncio.Event()
    first_part, last_part = _part(b"123456"), _part(b"7", more=False)

    async def slow() -> Message:
        nonlocal first_part
        message, first_part = first_part, last_part
        if message is last_part:
            await resume.wait()
        return message

    first, second = _scope(), _scope()
    waiting = asyncio.create_task(read_body(first, slow, limit_bytes=100))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await read_body(second, _receive(_part(b"12345")), limit_bytes=100)
    second[asgi.PLACE].leave()
    resume.set()
    assert await waiting == b"1234567"
    # Whole, it is held until its request is over.
    with pytest.raises(Unavailable):
        await read_body(second, _receive(_part(b"12345")), limit_bytes=100)
    second[asgi.PLACE].leave()
    first[asgi.PLACE].leave()
    receive = _receive(_part(b"1234567890"), _part(b"", more=False))
    assert await read_body(_scope(), receive, limit_bytes=100) == b"1234567890"


async def test_whole_bodies_in_work_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "MAX_HELD_BYTES", 10)
    monkeypatch.setattr(asgi, "_held_bytes", 0)
    going_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(scope, receive, limit_bytes=100)
        await going_on.wait()
        await respond(send, 200)

    def answering(body: bytes) -> asyncio.Task[list[Message]]:
        return asyncio.create_task(_answers(app, _part(body, more=False)))

    first, second = answering(b"123456"), answering(b"1234")
    await asyncio.sleep(0.01)
    [refused, problem] = await answering(b"1")
    assert refused["status"] == 503
    assert b"too many large requests" in problem["body"]
    going_on.set()
    for working in (first, second):
        [start, _] = await working
        assert start["status"] == 200
    assert asgi._held_bytes == 0


async def test_a_client_that_hangs_up() -> None:
    with pytest.raises(ClientGone):
        await read_body(
            _scope(), _receive(_part(b"ab"), {"type": "http.disconnect"}), limit_bytes=3
        )


async def _answers(app: Any, *received: Message) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await Listener("test", app, max_in_flight=10)(_scope(), _receive(*received), send)
    return sent


async def test_an_error_becomes_a_problem() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise PayloadTooLarge("too much")

    start, body = await _answers(app)
    assert start["status"] == 413
    assert b"too much" in body["body"]


async def test_a_client_that_is_gone_gets_nothing() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientGone("gone")

    assert await _answers(app) == []


async def test_an_error_after_the_answer_began_is_no_second_answer() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, b"{}")
        raise RuntimeError("late")

    with pytest.raises(RuntimeError, match="late"):
        await _answers(app)


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        (b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", False),
        (b"\x00", False),
    ],
)
def test_only_a_valid_trace_context_is_passed_on(value: bytes, valid: bool) -> None:
    assert traceparent({b"traceparent": value}) == (value.decode() if valid else None)
    assert traceparent({}) is None
