"""What the client sends, and what it makes of answers; httpx's mock stands in for the network."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from hybridjobs.client import BatchJob, Callback, Client
from hybridjobs.errors import ConfigurationError, InvalidInput, Unavailable
from hybridjobs.ids import new_id

JOB = new_id()


def _client(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client("http://api", "token", transport=httpx.MockTransport(answer))


def _answers(status: int, body: Any = None, **headers: str) -> Client:
    return _client(lambda _: httpx.Response(status, json=body, headers=headers))


async def test_only_what_is_said_is_sent() -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(202, json={"id": str(JOB)})

    async with _client(answer) as client:
        assert await client.submit("t", {"n": 1}) == JOB
        moment = datetime(2026, 11, 24, tzinfo=UTC)
        await client.submit(
            "t", None, run_at=moment, unique_key="u", unique_while="queued", depends_on=[JOB]
        )
    assert sent[0].headers["authorization"] == "Bearer token"
    assert json.loads(sent[0].content) == {"type": "t", "payload": {"n": 1}}
    assert json.loads(sent[1].content) == {
        "type": "t",
        "payload": None,
        "runAt": "2026-11-24T00:00:00+00:00",
        "uniqueKey": "u",
        "uniqueWhile": "queued",
        "dependsOn": [str(JOB)],
        "onDependencyFailure": "cancel",
    }


async def test_a_callback_is_a_url_or_says_of_what() -> None:
    def asked(callback: Callback | str | None) -> object:
        return BatchJob(type="t", payload=None, callback=callback).document().get("callback")

    assert asked(None) is None
    assert asked("https://a.example") == {"url": "https://a.example"}
    some = Callback(url="https://a.example", events=("failed",))
    assert asked(some) == {"url": "https://a.example", "on": ("failed",)}


async def test_a_refusal_has_its_status_and_faults() -> None:
    problem = {"detail": "no", "errors": [{"path": "/priority", "message": "must be less"}]}
    async with _answers(422, problem) as client:
        with pytest.raises(InvalidInput, match="no") as caught:
            await client.submit("t", {}, priority=101)
    assert caught.value.status == 422
    assert [error.path for error in caught.value.errors] == ["/priority"]


@pytest.mark.parametrize("body", [[], "text", {"errors": [1]}, {}])
async def test_a_refusal_by_something_between(body: Any) -> None:
    async with _answers(403, body) as client:
        with pytest.raises(InvalidInput, match="HTTP 403"):
            await client.job(JOB)


REDIRECT = httpx.Response(308, headers={"Location": "https://api/"})
PAGE = httpx.Response(200, html="<p>Please log in</p>")


@pytest.mark.parametrize(
    ("answer", "said"),
    [(REDIRECT, r"leads on to https://api/"), (PAGE, r"is not the API: it answers 200 with text/")],
)
async def test_another_service_at_the_address_is_named(answer: httpx.Response, said: str) -> None:
    async with _client(lambda _: answer) as client:
        with pytest.raises(ConfigurationError, match=said):
            await client.job(JOB)
        # Not followed, and not come back to for ever.
        async with asyncio.timeout(5):
            with pytest.raises(ConfigurationError, match=said):
                await client.wait(JOB)


async def test_a_token_that_can_be_none_is_refused_and_not_shown() -> None:
    for token in ("se\ncret", "sécret"):
        async with Client("http://api", token) as client:
            with pytest.raises(ConfigurationError) as raised:
                await client.job(JOB)
        assert "cret" not in str(raised.value)


async def test_without_a_token_none_is_sent_and_space_around_one_is_left_out() -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(401)

    for token in ("", " token\n"):
        transport = httpx.MockTransport(answer)
        async with Client("http://api", token, transport=transport) as client:
            with pytest.raises(InvalidInput):
                await client.job(JOB)
    assert [each.headers.get("authorization") for each in sent] == [None, "Bearer token"]


async def test_an_absent_service_says_when_to_come_back() -> None:
    async with _answers(503, {"detail": "away"}, **{"Retry-After": "7"}) as client:
        with pytest.raises(Unavailable, match="away") as caught:
            await client.cancel(JOB)
    assert caught.value.retry_after == 7

    def refuses(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    async with _client(refuses) as client:
        with pytest.raises(Unavailable, match="http://api does not answer"):
            await client.retry(JOB)


async def test_what_is_wrong_is_refused_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYBRIDJOBS_API_URL", raising=False)
    async with _answers(500) as client:
        with pytest.raises(InvalidInput, match="time zone"):
            await client.submit("t", {}, run_at=datetime(2026, 11, 24))
        with pytest.raises(InvalidInput, match="not JSON"):
            await client.submit("t", {"n": float("nan")})
        with pytest.raises(InvalidInput, match="not JSON"):
            await client.submit("t", object())
        with pytest.raises(InvalidInput, match="not JSON"):
            await client.submit("t", {"half a pair": "\ud800"})
    async with Client() as client:
        with pytest.raises(ConfigurationError, match="HYBRIDJOBS_API_URL"):
            await client.submit("t", {})
