"""The Idempotency-Key header over real sockets."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.builders import job_type
from tests.integration.ingress.conftest import Running

JOB = {"type": "test/long", "payload": {"n": 1}}


@pytest.fixture
async def api(ingress: Running) -> Running:
    await ingress.register(job_type(), job_type("test/other"))
    return ingress


async def post(
    api: Running, key: str, body: Any = JOB, *, path: str = "/api/jobs"
) -> httpx.Response:
    content = body if isinstance(body, str) else json.dumps(body)
    return await api.api.post(path, content=content, headers={"Idempotency-Key": key})


@pytest.mark.parametrize("key", ['"8e03978e-40d5"', "8e03978e-40d5", '"a \\"b\\" \\\\"'])
async def test_the_same_key_and_body_is_the_same_job(api: Running, key: str) -> None:
    first = await post(api, key)
    again = await post(api, key)
    # The order of members, and the space between them, are no part of what is asked for.
    other = await post(api, key, '{ "payload": {"n": 1}, "type": "test/long" }')
    assert first.status_code == again.status_code == other.status_code == 202
    assert first.json() == again.json() == other.json()
    assert await api.count() == 1


async def test_a_string_and_a_bare_word_are_one_key_and_the_job_has_it(api: Running) -> None:
    first = await post(api, '"k-1"')
    again = await post(api, "k-1")
    member = await api.submit("test/long", {"n": 1}, key="k-1")
    assert first.json()["id"] == again.json()["id"] == member.json()["id"]
    assert (await api.job(first.json()["id"])).key == "k-1"


@pytest.mark.parametrize(
    "changes",
    [{"payload": {"n": 2}}, {"priority": 1}, {"type": "test/other"}, {"payload": {"n": 1.0}}],
)
async def test_the_same_key_with_another_body_is_refused(
    api: Running, changes: dict[str, Any]
) -> None:
    await post(api, "k")
    answer = await post(api, "k", {**JOB, **changes})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "/Idempotency-Key"
    assert await api.count() == 1


async def test_of_many_at_once_one_makes_the_job(api: Running) -> None:
    answers = await asyncio.gather(*(post(api, "k") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    bodies = [{**JOB, "payload": {"n": n}} for n in range(20)]
    answers = await asyncio.gather(*(post(api, "other", body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [202] + [422] * 19
    assert await api.count() == 2


async def test_of_many_at_once_that_name_two_types_one_makes_the_job(api: Running) -> None:
    bodies = [JOB, {**JOB, "type": "test/other"}] * 10
    for round_ in range(5):
        answers = await asyncio.gather(*(post(api, f"k-{round_}", body) for body in bodies))
        assert sorted(answer.status_code for answer in answers) == [202] * 10 + [422] * 10
        accepted = {answer.text for answer in answers if answer.status_code == 202}
        assert len(accepted) == 1
        assert await api.count() == round_ + 1


@pytest.mark.parametrize("key", ["", '""', '"', "a b", '"a', '"é"', '"\\x"', "x" * 256, "a,b;c"])
async def test_what_is_no_key(api: Running, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode("latin-1"))]
    answer = await api.api.post("/api/jobs", content=json.dumps(JOB), headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"][0]["path"] == "/Idempotency-Key"


async def test_two_keys_are_none(api: Running) -> None:
    assert (await post(api, "k", {**JOB, "key": "k"})).status_code == 202
    assert (await post(api, "k", {**JOB, "key": "other"})).status_code == 422
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = await api.api.post("/api/jobs", content=json.dumps(JOB), headers=twice)
    assert answer.status_code == 400


async def test_batches_have_keys_of_their_own(api: Running) -> None:
    await post(api, "k")
    body = {"jobs": [JOB, JOB]}
    answers = await asyncio.gather(
        *(post(api, "k", body, path="/api/jobs:batch") for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("replayed" in answer.json() for answer in answers) == 4
    answer = await post(api, "k", {"jobs": [JOB]}, path="/api/jobs:batch")
    assert answer.status_code == 422
    assert await api.count() == 3
