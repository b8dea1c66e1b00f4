"""GitHub's webhooks over real sockets, with GitHub's own deliveries."""

import asyncio
import gzip
import hmac
import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from hybridjobs.ingress.sources.delivery import form_field
from hybridjobs.model import Status
from hybridjobs.payload import check_payload
from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.ingress.conftest import ROTATED, SECRET, Running, running
from tests.recorded import Delivery, deliveries, signed_headers

PATH = "/webhooks/github"
OPENED = next(d for d in deliveries() if d.event == "pull_request" and d.action == "opened")


def headers(body: bytes, *, event: str = "push", delivery: str = "d-1") -> dict[str, str]:
    return signed_headers(SECRET, Delivery(event, body, 0), delivery_id=delivery)


@pytest.fixture
async def long_type(ingress: Running) -> str:
    await ingress.register(job_type("test/long", events=["github/pull_request.opened"]))
    return "test/long"


async def test_every_recorded_delivery_is_answered(ingress: Running) -> None:
    events = sorted({f"github/{d.event}" for d in deliveries() if d.event != "ping"})
    await ingress.register(job_type("test/all", events=events[::2]))
    wanted = set(events[::2])
    for delivery in deliveries():
        answer = await ingress.webhooks.post(
            PATH, content=delivery.payload, headers=signed_headers(SECRET, delivery)
        )
        name = f"github/{delivery.event}"
        expected = 200 if delivery.event == "ping" else 202 if name in wanted else 204
        assert answer.status_code == expected, (delivery.event, delivery.action, answer.text)
    assert len(deliveries()) > 300
    assert await ingress.count() == sum(f"github/{d.event}" in wanted for d in deliveries())


async def test_a_delivery_becomes_a_queued_job(ingress: Running, long_type: str) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = await ingress.webhooks.post(
        PATH,
        content=OPENED.payload,
        headers={**signed_headers(SECRET, OPENED), "traceparent": trace},
    )
    assert answer.status_code == 202
    [accepted] = answer.json()["jobs"]
    job = await ingress.job(accepted["id"])
    assert accepted == {
        "id": str(job.id),
        "type": long_type,
        "status": "queued",
        "url": f"/api/jobs/{job.id}",
    }
    assert (job.source, job.key, job.submitted_by) == ("github", OPENED.id, "github")
    assert json.loads(job.payload) == OPENED.document
    assert job.status is Status.QUEUED


async def test_a_payload_is_kept_to_the_byte(ingress: Running, long_type: str) -> None:
    body = b'{"action":"opened","n":12345678901234567890,"x":1.0,"s":"$(HOME) \\ud83d\\ude00"}'
    answer = await ingress.webhooks.post(
        PATH, content=body, headers=headers(body, event="pull_request")
    )
    job = await ingress.job(answer.json()["jobs"][0]["id"])
    assert job.payload.encode() == body


async def test_types_for_every_action_and_for_one_share_a_commit(ingress: Running) -> None:
    await ingress.register(
        job_type("test/one", events=["github/pull_request.opened"]),
        job_type("test/every", events=["github/pull_request"]),
        job_type("test/other", events=["github/pull_request.closed"]),
    )
    answer = await ingress.webhooks.post(
        PATH, content=OPENED.payload, headers=signed_headers(SECRET, OPENED)
    )
    jobs = answer.json()["jobs"]
    assert {job["type"] for job in jobs} == {"test/one", "test/every"}
    created = {(await ingress.job(job["id"])).created_at for job in jobs}
    assert len(created) == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{ "action" : "opened" }',
        b'{"sender":{"action":"closed"},"action":"opened"}',
        b'\n{"action":"opened","x":1}',
    ],
)
async def test_the_action_is_found_however_it_is_written(
    ingress: Running, long_type: str, body: bytes
) -> None:
    answer = await ingress.webhooks.post(
        PATH, content=body, headers=headers(body, event="pull_request")
    )
    assert answer.status_code == 202


async def test_an_action_further_down_is_none(ingress: Running, long_type: str) -> None:
    body = b'{"pull_request":{"action":"opened"}}'
    answer = await ingress.webhooks.post(
        PATH, content=body, headers=headers(body, event="pull_request")
    )
    assert answer.status_code == 204


async def test_a_form_is_signed_as_it_was_sent(ingress: Running, long_type: str) -> None:
    form = urlencode({"payload": OPENED.payload.decode()}).encode()
    form_headers = {
        **headers(form, event="pull_request"),
        "content-type": "application/x-www-form-urlencoded",
    }
    answer = await ingress.webhooks.post(PATH, content=form, headers=form_headers)
    assert answer.status_code == 202
    job = await ingress.job(answer.json()["jobs"][0]["id"])
    assert json.loads(job.payload) == OPENED.document


async def test_concurrent_replays_give_the_same_job(ingress: Running, long_type: str) -> None:
    answers = await asyncio.gather(
        *(
            ingress.webhooks.post(
                PATH, content=OPENED.payload, headers=signed_headers(SECRET, OPENED)
            )
            for _ in range(30)
        )
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["jobs"][0]["id"] for answer in answers}) == 1
    assert sum("replayed" not in answer.json() for answer in answers) == 1
    assert await ingress.count() == 1


async def test_both_secrets_are_good_while_rotating(ingress: Running, long_type: str) -> None:
    for secret in (SECRET, ROTATED):
        answer = await ingress.webhooks.post(
            PATH, content=OPENED.payload, headers=signed_headers(secret, OPENED)
        )
        assert answer.status_code == 202


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        "sha256=",
        "sha256=" + "0" * 64,
        "sha1=" + hmac.digest(SECRET.encode(), OPENED.payload, "sha1").hex(),
        hmac.digest(SECRET.encode(), OPENED.payload, "sha256").hex(),
        "sha256=" + hmac.digest(b"another", OPENED.payload, "sha256").hex(),
        "sha256=\xe9",
    ],
)
async def test_a_wrong_signature_is_refused(
    ingress: Running, long_type: str, signature: str | None
) -> None:
    given = {k.encode(): v.encode() for k, v in signed_headers(SECRET, OPENED).items()}
    del given[b"x-hub-signature-256"]
    if signature is not None:
        given[b"x-hub-signature-256"] = signature.encode("latin-1")
    answer = await ingress.webhooks.post(PATH, content=OPENED.payload, headers=given)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert await ingress.count() == 0


async def test_a_changed_body_is_refused(ingress: Running, long_type: str) -> None:
    answer = await ingress.webhooks.post(
        PATH, content=OPENED.payload + b" ", headers=signed_headers(SECRET, OPENED)
    )
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("missing", "value", "status"),
    [
        ("x-github-event", None, 400),
        ("x-github-event", "Pull Request", 400),
        ("x-github-delivery", None, 400),
        ("x-github-delivery", "x" * 256, 400),
        ("content-type", "text/plain", 415),
    ],
)
async def test_a_header_that_is_missing_or_wrong(
    ingress: Running, long_type: str, missing: str, value: str | None, status: int
) -> None:
    given = signed_headers(SECRET, OPENED)
    del given[missing]
    if value is not None:
        given[missing] = value
    answer = await ingress.webhooks.post(PATH, content=OPENED.payload, headers=given)
    assert answer.status_code == status
    assert await ingress.count() == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"garbage", 400),
        (b"[1]", 400),
        (b'"text"', 400),
        (b'{"action":"opened",}', 400),
        (b'{"action":"opened"', 400),
        (b'{"action":"opened","s":"\xff"}', 400),
        (b'{"action":"opened","s":"\x00"}', 400),
        (b'{"action":"opened","s":"\\ud800"}', 400),
        (b'{"action":"opened","n":NaN}', 400),
        (b'{"action":"opened","s":"\\u0000"}', 422),
        (b'{"action":"opened","d":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
    ],
)
async def test_garbage_is_refused_and_harms_no_other(
    ingress: Running, long_type: str, body: bytes, status: int
) -> None:
    good = [
        ingress.webhooks.post(
            PATH, content=OPENED.payload, headers=signed_headers(SECRET, OPENED, delivery_id=str(n))
        )
        for n in range(10)
    ]
    bad = ingress.webhooks.post(PATH, content=body, headers=headers(body, event="pull_request"))
    refused, *accepted = await asyncio.gather(bad, *good)
    assert refused.status_code == status, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert {answer.status_code for answer in accepted} == {202}


async def test_an_event_that_no_type_wants_is_counted(ingress: Running) -> None:
    body = b'{"action":"created"}'
    answer = await ingress.webhooks.post(PATH, content=body, headers=headers(body, event="star"))
    assert (answer.status_code, answer.content) == (204, b"")
    metrics = (await ingress.health.get("/metrics")).text
    assert 'hybridjobs_webhook_unmatched_events_total{event="star",source="github"}' in metrics


async def test_a_payload_that_the_schema_refuses(ingress: Running, long_type: str) -> None:
    schema = {"type": "object", "required": ["nope"]}
    await ingress.register(
        job_type("test/strict", events=["github/issues"], payloadSchema=schema),
        job_type("test/lax", events=["github/issues.opened"]),
    )
    body = b'{"action":"opened"}'
    some = await ingress.webhooks.post(PATH, content=body, headers=headers(body, event="issues"))
    assert some.status_code == 202
    assert [job["type"] for job in some.json()["jobs"]] == ["test/lax"]
    assert some.json()["refused"][0]["type"] == "test/strict"
    other = b'{"action":"closed"}'
    none = await ingress.webhooks.post(PATH, content=other, headers=headers(other, event="issues"))
    assert none.status_code == 422
    assert none.json()["errors"][0]["path"] == "/payload"


async def test_a_delivery_goes_through_the_type_s_mapping(ingress: Running) -> None:
    mapping = {"fullName": "repository.full_name", "head": "pull_request.head.sha", "no": "x.y"}
    await ingress.register(
        job_type("test/action", events=["github/pull_request.opened"], mapping=mapping),
        job_type("test/event", events=["github/pull_request"], mapping={"id": "number"}),
    )
    answer = await ingress.webhooks.post(
        PATH, content=OPENED.payload, headers=signed_headers(SECRET, OPENED)
    )
    jobs = {job["type"]: await ingress.job(job["id"]) for job in answer.json()["jobs"]}
    document = OPENED.document
    assert json.loads(jobs["test/action"].payload) == {
        "fullName": document["repository"]["full_name"],
        "head": document["pull_request"]["head"]["sha"],
    }
    assert json.loads(jobs["test/event"].payload) == {"id": document["number"]}


@pytest.mark.parametrize("is_form", [False, True])
async def test_a_large_delivery_is_read_beside_the_loop(
    ingress: Running, monkeypatch: pytest.MonkeyPatch, is_form: bool
) -> None:
    """Else all other senders would wait for it, for seconds."""
    await ingress.register(job_type(events=["github/push"]))
    threads: list[str] = []

    def noting(work: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            threads.append(threading.current_thread().name)
            return work(*arguments)

        return noted

    monkeypatch.setattr("hybridjobs.ingress.intake.check_payload", noting(check_payload))
    monkeypatch.setattr("hybridjobs.ingress.sources.github.form_field", noting(form_field))
    for size in (100, 100_000):
        body = json.dumps({"commits": ["x" * size]}).encode()
        sent = {"content-type": "application/json"}
        if is_form:
            body = urlencode({"payload": body.decode()}).encode()
            sent = {"content-type": "application/x-www-form-urlencoded"}
        delivery = {**headers(body, delivery=f"{size}"), **sent}
        answer = await ingress.webhooks.post(PATH, content=body, headers=delivery)
        assert answer.status_code == 202
    here = threading.current_thread().name
    steps = 2 if is_form else 1
    assert [each == here for each in threads] == [True] * steps + [False] * steps


@pytest.mark.parametrize("spec", [{"mapping": {"a": "a"}}, {"payloadSchema": {"type": "object"}}])
async def test_garbage_is_refused_by_mapping_and_schema_too(
    ingress: Running, spec: dict[str, Any]
) -> None:
    await ingress.register(job_type("test/m", events=["github/push"], **spec))
    for body in (b'{"a":1,}', b'{"a":NaN}', b'{"a":' + b"[" * 100_000):
        answer = await ingress.webhooks.post(PATH, content=body, headers=headers(body))
        assert answer.status_code == 400, answer.text


async def test_a_body_that_is_encoded_is_refused(ingress: Running, long_type: str) -> None:
    body = gzip.compress(OPENED.payload)
    encoded = {**headers(body, event="pull_request"), "content-encoding": "gzip"}
    answer = await ingress.webhooks.post(PATH, content=body, headers=encoded)
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    assert "without Content-Encoding" in answer.json()["detail"]


async def test_without_a_secret_it_is_closed(database_urls: DatabaseUrls) -> None:
    async with running(database_urls.service, github_webhook_secret=" , ") as closed:
        answer = await closed.webhooks.post(
            PATH, content=OPENED.payload, headers=signed_headers("", OPENED)
        )
    assert answer.status_code == 503
    assert "HYBRIDJOBS_GITHUB_WEBHOOK_SECRET" in answer.json()["detail"]


async def test_other_paths_and_methods(ingress: Running) -> None:
    assert (await ingress.webhooks.post("/webhooks/gitlab")).status_code == 404
    answer = await ingress.webhooks.get(PATH)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["status"] == 405
