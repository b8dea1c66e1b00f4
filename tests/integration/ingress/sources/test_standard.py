"""Standard Webhooks over real sockets."""

import hmac
import json
import time
from base64 import b64encode

import httpx
import pytest

from hybridjobs.errors import ConfigurationError
from hybridjobs.model import Status
from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.ingress.conftest import Running, running

PATH = "/webhooks/standard/acme"
KEY = b"0123456789abcdef01234567"
BODY = b'{"type":"user.created","timestamp":"2026-11-24T09:30:00Z","data":{"id":7}}'


def signed(body: bytes, *, id_: str = "msg_1", key: bytes = KEY, at: float = 0) -> dict[str, str]:
    timestamp = str(int(time.time() + at))
    digest = hmac.digest(key, f"{id_}.{timestamp}.".encode() + body, "sha256")
    return {
        "content-type": "application/json",
        "webhook-id": id_,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{b64encode(digest).decode()}",
    }


async def post(
    ingress: Running, body: bytes, headers: dict[str, str], path: str = PATH
) -> httpx.Response:
    return await ingress.webhooks.post(path, content=body, headers=headers)


async def test_a_message_becomes_a_job_with_its_body_as_it_was_sent(sources: Running) -> None:
    await sources.register(job_type("test/user", events=["acme/user.created"]))
    body = b'{"type" : "user.created","data":{"n":12345678901234567890,"x":1.0,"s":"\\u00e9"}}'
    answer = await post(sources, body, signed(body))
    assert answer.status_code == 202
    job = await sources.job(answer.json()["jobs"][0]["id"])
    assert job.payload.encode() == body
    assert (job.source, job.key, job.submitted_by) == ("standard:acme", "msg_1", "standard:acme")
    assert job.status is Status.QUEUED


async def test_the_same_id_is_the_same_job_per_source(sources: Running) -> None:
    await sources.register(job_type("test/user", events=["acme/a", "clerk-2/a"]))
    body = b'{"type":"a"}'
    first, again = [await post(sources, body, signed(body, at=n)) for n in (0, 5)]
    other = await post(
        sources, body, signed(body, key=b"clerkclerkclerkclerk"), "/webhooks/standard/clerk-2"
    )
    assert again.json() == {**first.json(), "replayed": True}
    assert "replayed" not in other.json()
    assert await sources.count() == 2


async def test_both_secrets_are_good_while_rotating(sources: Running) -> None:
    for key, status in ((KEY, 204), (b"rotated-secret", 204), (b"clerkclerkclerkclerk", 401)):
        assert (await post(sources, BODY, signed(BODY, key=key))).status_code == status


@pytest.mark.parametrize("at", [-310, 310])
async def test_a_message_of_another_time_is_refused(sources: Running, at: int) -> None:
    answer = await post(sources, BODY, signed(BODY, at=at))
    assert answer.status_code == 401
    assert "Webhook-Timestamp" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"webhook-signature": ""}, 401),
        ({"webhook-id": "msg_2"}, 401),
        ({"webhook-id": "msg.1"}, 400),
        ({"webhook-id": "x" * 256}, 400),
        ({"webhook-timestamp": "now"}, 400),
        ({"webhook-timestamp": ""}, 400),
    ],
)
async def test_headers_that_do_not_fit(
    sources: Running, changes: dict[str, str], status: int
) -> None:
    await sources.register(job_type("test/user", events=["acme/user.created"]))
    answer = await post(sources, BODY, {**signed(BODY), **changes})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert await sources.count() == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"type":"a"', 400),
        (b'{"type":"\xff"}', 400),
        (b'{"data":{}}', 422),
        (b'{"type":5}', 422),
        (b'{"type":"a","s":"\\u0000"}', 422),
    ],
)
async def test_a_signed_body_that_is_no_event(sources: Running, body: bytes, status: int) -> None:
    await sources.register(job_type("test/user", events=["acme/a"]))
    answer = await post(sources, body, signed(body))
    assert answer.status_code == status, answer.text
    assert await sources.count() == 0


async def test_an_event_that_no_type_wants_is_counted(sources: Running) -> None:
    answer = await post(sources, BODY, signed(BODY))
    assert (answer.status_code, answer.content) == (204, b"")
    metrics = (await sources.health.get("/metrics")).text
    assert 'unmatched_events_total{event="user.created",source="standard:acme"}' in metrics


@pytest.mark.parametrize("source", ["", "nobody", "acme/x", "../github"])
async def test_an_unknown_source_is_not_found(sources: Running, source: str) -> None:
    answer = await post(sources, BODY, signed(BODY), f"/webhooks/standard/{source}")
    assert answer.status_code in (401, 404)
    assert (answer.status_code == 401) == (source == "../github")


async def test_without_secrets_it_is_closed(database_urls: DatabaseUrls) -> None:
    async with running(database_urls.service) as closed:
        answer = await post(closed, BODY, signed(BODY))
    assert answer.status_code == 503
    assert "HYBRIDJOBS_STANDARD_WEBHOOK_SECRETS" in answer.json()["detail"]


async def test_a_secret_that_cannot_be_one_ends_the_start(database_urls: DatabaseUrls) -> None:
    with pytest.raises(ConfigurationError, match="the secret of acme"):
        async with running(database_urls.service, standard_webhook_secrets={"acme": "whsec_!"}):
            pass


async def test_the_mapping_of_a_type_makes_its_payload(sources: Running) -> None:
    schema = {"type": "object", "required": ["user"], "properties": {"user": {"type": "integer"}}}
    mapping = {"user": "data.id", "at": "timestamp", "none": "data.nope.x"}
    await sources.register(
        job_type("test/mapped", events=["acme/user.created"], mapping=mapping),
        job_type(
            "test/strict",
            events=["acme/user.created"],
            mapping={"user": "data.id"},
            payloadSchema=schema,
        ),
        job_type("test/whole", events=["acme/user.created"]),
    )
    answer = await post(sources, BODY, signed(BODY))
    payloads = {
        job["type"]: json.loads((await sources.job(job["id"])).payload)
        for job in answer.json()["jobs"]
    }
    assert payloads == {
        "test/mapped": {"user": 7, "at": "2026-11-24T09:30:00Z"},
        "test/strict": {"user": 7},
        "test/whole": json.loads(BODY),
    }
    other = BODY.replace(b"7", b'"seven"')
    refused = (await post(sources, other, signed(other, id_="msg_2"))).json()["refused"]
    assert [(each["type"], each["errors"][0]["path"]) for each in refused] == [
        ("test/strict", "/payload/user")
    ]


async def test_the_api_s_payloads_are_not_mapped(sources: Running) -> None:
    await sources.register(job_type("test/mapped", mapping={"user": "data.id"}))
    answer = await sources.submit("test/mapped", {"data": {"id": 7}})
    assert json.loads((await sources.job(answer.json()["id"])).payload) == {"data": {"id": 7}}
