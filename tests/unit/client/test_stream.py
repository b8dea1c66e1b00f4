"""Streams of events: made of any chunks, resumed after any cut; httpx's mock is the network."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridjobs.client import BatchJob, Client, JobEvent, Missed, stream
from hybridjobs.client.stream import Decoder, ServerEvent
from hybridjobs.errors import InvalidInput, Unavailable
from hybridjobs.ids import new_id
from hybridjobs.model import Status

ONE, TWO, THREE = (new_id() for _ in range(3))
STREAM = (
    "\ufeffretry: 2000\r\n\r\n"
    ": a comment\nid: 1\n\n"
    'event: job\rdata: {"a":\rdata: "\u2028\x85é"}\r\r'
    "id: 2\r\nevent:reset\r\ndata:{}\r\n\r\n"
    "data: cut off here"
)
EVENTS = [ServerEvent("job", '{"a":\n"\u2028\x85é"}', "1"), ServerEvent("reset", "{}", "2")]


@given(st.sets(st.integers(0, len(STREAM.encode()))))
def test_events_are_the_same_however_they_arrive(cuts: set[int]) -> None:
    decoder, whole = Decoder(), STREAM.encode()
    bounds = [0, *sorted(cuts), len(whole)]
    chunks = [whole[start:end] for start, end in pairwise(bounds)]
    assert [event for chunk in chunks for event in decoder.feed(chunk)] == EVENTS


def test_what_is_incomplete_is_no_position() -> None:
    decoder = Decoder("1")
    assert list(decoder.feed(b"id: 2\ndata: x\n")) == []
    assert decoder.position == "1"
    decoder.restart()
    assert list(decoder.feed(b"data: y\n\n")) == [ServerEvent("message", "y", "1")]


def _job(job_id: object, status: str = "queued", *, id_: str = "", **members: object) -> str:
    job = {"id": str(job_id), "type": "t", "status": status, "attempt": 0, **members}
    return (f"id: {id_}\n" if id_ else "") + f"event: job\ndata: {json.dumps(job)}\n\n"


class Server:
    """Answers one request after the other, and keeps what came; a text is a stream cut off."""

    def __init__(self, *answers: str | int | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.url.raw_path.decode(), request.headers.get("last-event-id")))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            return httpx.Response(answer, headers={"Retry-After": "0"})
        return _stream(answer)


def _stream(text: str) -> httpx.Response:
    kind = {"Content-Type": "text/event-stream; charset=utf-8"}
    return httpx.Response(200, headers=kind, content=_cut_off(text))


async def _cut_off(text: str) -> AsyncIterator[bytes]:
    yield text.encode()
    raise httpx.ReadError("cut off")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_BACKOFF_SECONDS", 0.001)


def _client(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client("http://api", "token", transport=httpx.MockTransport(answer))


async def test_a_stream_goes_on_where_it_was_and_nothing_comes_twice() -> None:
    server = Server(
        _job(ONE, id_="1") + _job(TWO) + _job(THREE),
        httpx.ConnectError("refused"),
        503,
        _job(TWO) + _job(THREE, "processing") + _job(ONE, "failed", id_="2"),
        _job(ONE, "failed", id_="3") + "id: 4\nevent: reset\ndata: {}\n\n",
        "id: 5\nevent: reset\ndata: {}\n\n",
        403,
    )
    seen: list[tuple[object, ...]] = []
    async with _client(server) as client:
        with pytest.raises(InvalidInput):  # noqa: PT012
            async for event in client.follow_all(
                type_="t/x", statuses=[Status.QUEUED, Status.FAILED], after="0"
            ):
                match event:
                    case JobEvent():
                        seen.append((event.id, event.status.value, event.position))
                    case Missed():
                        seen.append((event.position,))
    assert seen == [
        (ONE, "queued", "1"),
        (TWO, "queued", "1"),
        (THREE, "queued", "1"),
        (THREE, "processing", "1"),
        (ONE, "failed", "2"),
        ("4",),
        ("5",),
    ]
    assert [position for _, position in server.asked] == ["0", "1", "1", "1", "2", "4", "5"]
    assert {path for path, _ in server.asked} == {"/api/events?type=t%2Fx&status=queued%2Cfailed"}


async def test_a_job_is_followed_to_its_end_and_no_further() -> None:
    server = Server(
        _job(ONE, id_="1") + _job(ONE, id_="1", progress={"done": 1}),
        _job(ONE, id_="1", progress={"done": 1}) + _job(ONE, "completed", id_="2"),
    )
    async with _client(server) as client:
        seen = [event async for event in client.follow(ONE)]
    assert [(event.status, event.document.get("progress")) for event in seen] == [
        (Status.QUEUED, None),
        (Status.QUEUED, {"done": 1}),
        (Status.COMPLETED, None),
    ]
    assert [position for _, position in server.asked] == [None, "1"]


async def test_a_service_away_is_told_at_the_start_and_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for failure in (httpx.ConnectError("refused"), 503):
        async with _client(Server(failure)) as client:
            with pytest.raises(Unavailable):
                await anext(client.follow(ONE))
    monkeypatch.setattr(stream, "AWAY_SECONDS", 0.05)

    def answers(request: httpx.Request) -> httpx.Response:
        if "last-event-id" in request.headers:
            raise httpx.ConnectError("refused")
        return _stream(_job(ONE, id_="1"))

    async with _client(answers) as client:
        with pytest.raises(Unavailable, match="does not answer"):
            assert [event async for event in client.follow(ONE)] == []


async def test_the_time_between_tries_grows_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(stream, "_BACKOFF_SECONDS", 0.5)
    away = [httpx.ConnectError("refused")] * 30
    server = Server(_job(ONE, id_="1"), *away, _job(ONE, "processing", id_="2"), 404)
    async with _client(server) as client:
        with pytest.raises(InvalidInput):
            assert [event.status async for event in client.follow(ONE)] == []
    assert 0.25 <= waits[0] <= 0.5 < 7.5 <= min(waits[6:31]) <= max(waits) <= 15
    assert waits[31] <= 0.5, "it begins anew when something has come"


async def test_a_service_that_says_when_is_asked_then(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    answers = iter((_job(ONE, id_="1"), "7", "3600", _job(ONE, "failed", id_="2")))

    def answer(_: httpx.Request) -> httpx.Response:
        if (text := next(answers)).isdecimal():
            return httpx.Response(429, headers={"Retry-After": text})
        return _stream(text)

    async with _client(answer) as client:
        assert len([event async for event in client.follow(ONE)]) == 2
    assert waits[1:] == [7, 15]


async def test_a_batch_is_waited_for_by_its_events() -> None:
    counts = {"queued": 1, "processing": 0, "completed": 1, "failed": 0, "cancelled": 0}

    def event(id_: str, *, finished: bool) -> str:
        batch = {"id": str(ONE), "counts": counts, "finished": finished}
        return f"id: {id_}\nevent: batch\ndata: {json.dumps(batch)}\n\n"

    server = Server(event("1", finished=False), event("2", finished=True))

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(202, json={"id": str(ONE), "total": 2})
        return server(request)

    async with _client(answer) as client:
        batch = await client.submit_batch([BatchJob(type="t", payload=n) for n in range(2)])
        assert (batch.id, batch.total) == (ONE, 2)
        assert (await batch.wait())[Status.COMPLETED] == 1
    path = f"/api/batches/{ONE}/events"
    assert server.asked == [(path, None), (path, "1")]
