"""CloudEvents over real sockets: three modes, the token, the handshake."""

import gzip
import json
from typing import Any

import pytest

from hybridjobs.model import Status
from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.ingress.conftest import Running, running
from tests.integration.ingress.sources.conftest import CLOUDEVENTS_TOKEN

PATH = "/webhooks/cloudevents"
BEARER = {"authorization": f"Bearer {CLOUDEVENTS_TOKEN}"}
STRUCTURED = {**BEARER, "content-type": "application/cloudevents+json"}
BATCH = {**BEARER, "content-type": "application/cloudevents-batch+json"}
TYPE = "com.example.order.paid"


def event(**attributes: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "1", "source": "/shop", "type": TYPE, **attributes}


@pytest.fixture
async def paid(sources: Running) -> str:
    await sources.register(job_type("test/paid", events=[TYPE]))
    return "test/paid"


async def test_a_structured_event_becomes_a_job(sources: Running, paid: str) -> None:
    body = b' {"specversion":"1.0","id":"1","source":"/shop","type":"com.example.order.paid",'
    body += b'"data":{"n":12345678901234567890,"x":1.0}}'
    answer = await sources.webhooks.post(PATH, content=body, headers=STRUCTURED)
    assert answer.status_code == 202
    job = await sources.job(answer.json()["jobs"][0]["id"])
    assert job.payload.encode() == body
    assert (job.type, job.source, job.key) == (paid, "cloudevents", "/shop 1")
    assert job.status is Status.QUEUED


async def test_a_binary_event_is_the_same_event(sources: Running, paid: str) -> None:
    binary = {
        **BEARER,
        "content-type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "/shop",
        "ce-type": TYPE,
        "ce-subject": "caf%C3%A9",
    }
    data = b'{ "n":12345678901234567890, "x":1.0 }'
    first = await sources.webhooks.post(PATH, content=data, headers=binary)
    job = await sources.job(first.json()["jobs"][0]["id"])
    assert job.payload.endswith(f'"data":{data.decode()}}}')
    assert json.loads(job.payload)["subject"] == "café"
    again = await sources.webhooks.post(PATH, content=json.dumps(event()), headers=STRUCTURED)
    assert again.json()["jobs"][0]["id"] == str(job.id)
    assert again.json()["replayed"] is True


async def test_data_that_is_encoded_is_refused_and_not_kept_so(sources: Running, paid: str) -> None:
    binary = {
        **BEARER,
        "content-type": "text/plain",
        "content-encoding": "gzip",
        **{f"ce-{name}": value for name, value in event().items()},
    }
    answer = await sources.webhooks.post(PATH, content=gzip.compress(b"text"), headers=binary)
    assert answer.status_code == 415
    assert await sources.count() == 0


async def test_source_and_id_tell_events_apart(sources: Running, paid: str) -> None:
    for changes in ({}, {"id": "2"}, {"source": "/other"}, {"source": "/shop", "id": "1 1"}):
        content = json.dumps(event(**changes))
        answer = await sources.webhooks.post(PATH, content=content, headers=STRUCTURED)
        assert "replayed" not in answer.json()
    assert await sources.count() == 4


async def test_a_batch_is_one_commit_with_an_entry_for_each_event(
    sources: Running, paid: str
) -> None:
    batch = [event(), event(id="2"), event(id="3", type="other"), event(id="4", source=5), "x"]
    answer = await sources.webhooks.post(PATH, content=json.dumps(batch), headers=BATCH)
    assert answer.status_code == 202
    first, second, other, wrong, nothing = answer.json()["events"]
    assert (first["id"], second["id"], other["id"]) == ("1", "2", "3")
    assert [each["type"] for each in first["jobs"]] == [paid]
    assert other == {"source": "/shop", "id": "3", "jobs": []}
    assert wrong["errors"][0]["path"] == "/source"
    assert "object" in nothing["detail"]
    made = [await sources.job(each["jobs"][0]["id"]) for each in (first, second)]
    assert len({job.created_at for job in made}) == 1
    assert await sources.count() == 2
    again = await sources.webhooks.post(PATH, content=json.dumps(batch), headers=BATCH)
    assert [each.get("replayed") for each in again.json()["events"]][:3] == [True, True, None]


async def test_an_event_twice_in_a_batch_is_one_job(sources: Running, paid: str) -> None:
    batch = [event(), event(data=1), event(source="/other")]
    answer = await sources.webhooks.post(PATH, content=json.dumps(batch), headers=BATCH)
    first, twice, other = answer.json()["events"]
    assert twice == {**first, "replayed": True}
    assert other["jobs"][0]["id"] != first["jobs"][0]["id"]
    assert await sources.count() == 2


async def test_a_batch_of_which_nothing_is_good_is_refused(sources: Running, paid: str) -> None:
    batch = [event(id=""), 5]
    answer = await sources.webhooks.post(PATH, content=json.dumps(batch), headers=BATCH)
    assert answer.status_code == 422
    assert [each["path"] for each in answer.json()["errors"]] == ["/0/id", "/1"]
    assert await sources.count() == 0


async def test_an_empty_batch_and_one_that_is_too_long(sources: Running) -> None:
    answer = await sources.webhooks.post(PATH, content=b"[]", headers=BATCH)
    assert (answer.status_code, answer.json()) == (200, {"events": []})
    content = json.dumps([event(id=str(n)) for n in range(101)])
    assert (await sources.webhooks.post(PATH, content=content, headers=BATCH)).status_code == 413


async def test_a_whole_batch_of_large_events(sources: Running, paid: str) -> None:
    batch = [event(id=str(n), data="x" * 10_000) for n in range(100)]
    answer = await sources.webhooks.post(PATH, content=json.dumps(batch), headers=BATCH)
    assert len(answer.json()["events"]) == await sources.count() == 100


async def test_a_batch_s_event_that_does_not_fit_the_schema(sources: Running) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    await sources.register(
        job_type("test/n", events=[TYPE], mapping={"n": "data.n"}, payloadSchema=schema)
    )
    batch = [event(data={"n": 1}), event(id="2", data={"n": "one"}), event(id="3")]
    answer = await sources.webhooks.post(PATH, content=json.dumps(batch), headers=BATCH)
    good, wrong, missing = answer.json()["events"]
    assert (await sources.job(good["jobs"][0]["id"])).payload == '{"n":1}'
    assert (wrong["id"], wrong["errors"][0]["path"]) == ("2", "/payload/n")
    assert missing["errors"][0]["path"] == "/payload"


@pytest.mark.parametrize("type_", ["github/push", "acme/user.created"])
async def test_no_event_may_pretend_to_be_of_another_source(sources: Running, type_: str) -> None:
    await sources.register(job_type("test/other", events=[type_]))
    answer = await sources.webhooks.post(
        PATH, content=json.dumps(event(type=type_)), headers=STRUCTURED
    )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["path"] == "/type"
    assert await sources.count() == 0


async def test_an_event_that_no_type_wants(sources: Running) -> None:
    answer = await sources.webhooks.post(PATH, content=json.dumps(event()), headers=STRUCTURED)
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-type": "application/cloudevents+json"}, b"{", 400),
        ({"content-type": "application/cloudevents+json"}, b"[]", 400),
        ({"content-type": "application/cloudevents+json"}, b"\xff", 400),
        ({"content-type": "application/cloudevents+json"}, b"[" * 100_000, 422),
        ({"content-type": "application/cloudevents+json"}, b"{}", 422),
        ({"content-type": "application/cloudevents-batch+json"}, b"{}", 400),
        ({"content-type": "application/cloudevents+xml"}, b"<event/>", 415),
        ({"content-type": "application/json"}, b"{}", 422),
        ({"content-type": "application/json", "ce-id": "%ff"}, b"{}", 422),
    ],
)
async def test_what_is_no_event_is_refused(
    sources: Running, headers: dict[str, str], body: bytes, status: int
) -> None:
    answer = await sources.webhooks.post(PATH, content=body, headers={**BEARER, **headers})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("authorization", "query", "status"),
    [
        (f"Bearer {CLOUDEVENTS_TOKEN}", "", 204),
        ("bearer rotated", "", 204),
        ("", f"?access_token={CLOUDEVENTS_TOKEN}", 204),
        ("", "", 401),
        ("Bearer wrong", f"?access_token={CLOUDEVENTS_TOKEN}", 401),
        (CLOUDEVENTS_TOKEN, "", 401),
        ("", "?access_token=", 401),
    ],
)
async def test_the_token(sources: Running, authorization: str, query: str, status: int) -> None:
    headers = {**STRUCTURED, "authorization": authorization}
    answer = await sources.webhooks.post(PATH + query, content=json.dumps(event()), headers=headers)
    assert answer.status_code == status
    assert ("www-authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("events.example.com", 200),
        ("other.example.org", 200),
        ("example.com", 403),
        ("", 400),
        ("a b", 400),
    ],
)
async def test_the_handshake(sources: Running, origin: str, status: int) -> None:
    answer = await sources.webhooks.options(
        PATH, headers={"webhook-request-origin": origin, "webhook-request-rate": "120"}
    )
    assert answer.status_code == status
    permission = {
        name: answer.headers.get(f"webhook-allowed-{name}") for name in ("origin", "rate")
    }
    if status == 200:
        assert permission == {"origin": origin, "rate": "*"}
        assert answer.headers["allow"] == "POST, OPTIONS"
    else:
        assert permission == {"origin": None, "rate": None}


async def test_every_origin_may_be_welcome(database_urls: DatabaseUrls) -> None:
    async with running(
        database_urls.service, cloudevents_token="t", cloudevents_allowed_origins="*"
    ) as open_:
        answer = await open_.webhooks.options(PATH, headers={"webhook-request-origin": "a.b"})
    assert (answer.status_code, answer.headers["webhook-allowed-origin"]) == (200, "*")


async def test_without_a_token_it_is_closed(database_urls: DatabaseUrls) -> None:
    async with running(database_urls.service) as closed:
        for method in ("POST", "OPTIONS"):
            answer = await closed.webhooks.request(
                method, PATH, headers={"webhook-request-origin": "a"}
            )
            assert answer.status_code == 503
            assert "HYBRIDJOBS_CLOUDEVENTS_TOKEN" in answer.json()["detail"]


async def test_other_methods(sources: Running) -> None:
    answer = await sources.webhooks.get(PATH)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
