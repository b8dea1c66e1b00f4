"""`/api/inngest` for strangers, for plain senders, and for a server that syncs the app."""

import asyncio
import hashlib
import json
import time
from dataclasses import replace
from typing import Any, cast

import httpx
import pytest

from hybridjobs.errors import ConfigurationError
from hybridjobs.ingress.inngest.app import InngestApp
from hybridjobs.ingress.inngest.config import InngestConfig
from hybridjobs.ingress.inngest.sdk import Sdk
from hybridjobs.model import Status
from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.ingress.conftest import (
    Running,
    quick_type,
    refused_by_rate,
    running,
    settings,
)
from tests.integration.ingress.inngest.conftest import KEY, OLD_KEY, PATH, Scene, Start
from tests.integration.ingress.inngest.server import Run, call_body
from tests.waiting import eventually

LONG = job_type("test/long", events=["shop/order.paid"])
EVENT = b'{"name":"shop/order.paid","data":{"n":12345678901234567890},"id":"e-1","ts":1}'


async def post(
    scene: Scene, body: bytes, *, query: str = "", signature: str | None = None
) -> httpx.Response:
    given = scene.server.sign(body) if signature is None else signature
    headers = {"x-inngest-signature": given, "content-type": "application/json"}
    return await scene.ingress.webhooks.post(PATH + query, content=body, headers=headers)


async def test_the_registration_names_every_type_with_events(inngest: Start) -> None:
    many = [f"shop/event.{n}" for n in range(23)]
    scene = await inngest(
        LONG, quick_type("quick/echo", events=["shop/ping"]), job_type("test/none"),
        job_type("test/many", events=many),
    )  # fmt: skip
    await scene.registered("test/long", "quick/echo")
    registration = scene.server.registrations[-1]
    origin = str(scene.ingress.webhooks.base_url).rstrip("/")
    assert registration["appname"] == "hybridjobs"
    assert registration["url"] == f"{origin}{PATH}"
    assert scene.server.bearers[-1] == hashlib.sha256(bytes.fromhex(KEY[13:])).hexdigest()
    functions = scene.server.functions
    assert set(functions) == {
        "hybridjobs-cancelled_runs",
        "hybridjobs-quick-echo",
        "hybridjobs-test-long",
        *(f"hybridjobs-test-many{suffix}" for suffix in ("", "_2", "_3")),
    }
    long = functions["hybridjobs-test-long"]
    assert long["triggers"] == [{"event": "shop/order.paid"}]
    assert set(long) == {"id", "name", "steps", "triggers"}  # no limit but the queue's own
    step = long["steps"]["step"]
    assert step["retries"] == {"attempts": 20}
    assert step["runtime"]["url"] == f"{origin}{PATH}?fnId=hybridjobs-test-long&stepId=step"
    triggers = [
        trigger["event"]
        for name, function in functions.items()
        if "many" in name
        for trigger in function["triggers"]
    ]
    assert sorted(triggers) == sorted(many)


async def test_functions_follow_the_types_and_are_registered_anew(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    before = len(scene.server.registrations)
    await scene.ingress.register(job_type("test/new", events=["shop/new"]))
    await scene.registered("test/new")
    assert len(scene.server.registrations) == before + 1
    async with scene.ending():
        [run] = scene.server.send("shop/new", {})
        await run.ended()
    assert run.status == "completed"


async def test_a_type_s_throttle_is_its_function_s_unless_it_has_a_key(inngest: Start) -> None:
    throttle = {"limit": 5, "periodSeconds": 120}
    scene = await inngest(
        job_type("test/slow", events=["shop/a"], throttle=throttle, concurrency={"limit": 2}),
        job_type("test/keyed", events=["shop/a"], throttle={**throttle, "key": "order.id"}),
        job_type("test/rare", events=["shop/a"], throttle={"limit": 1, "periodSeconds": 864_000}),
    )
    known = await scene.registered("test/slow", "test/keyed", "test/rare")
    assert known["test/slow"]["throttle"] == {"limit": 5, "period": "2m", "burst": 5}
    assert "concurrency" not in known["test/slow"]
    assert "throttle" not in known["test/keyed"]
    assert "throttle" not in known["test/rare"]
    slower = job_type("test/slow", events=["shop/a"], throttle={"limit": 1, "periodSeconds": 60})
    await scene.ingress.register(replace(slower, generation=2))
    await eventually(
        lambda: scene.server.functions[known["test/slow"]["id"]]["throttle"]["period"] == "1m"
    )


async def test_two_hundred_types_are_one_registration(inngest: Start) -> None:
    types = [job_type(f"test/t{n}", events=[f"shop/{n}.a", f"shop/{n}.b"]) for n in range(200)]
    scene = await inngest(*types)
    await scene.registered("test/t0", "test/t199")
    assert len(scene.server.functions) == 201
    assert len(json.dumps(scene.server.registrations[-1])) < 128 * 1024
    async with scene.ending():
        [run] = scene.server.send("shop/199.b", {})
        await run.ended()
    assert run.status == "completed"


async def test_following_types_that_have_not_changed_costs_a_call_next_to_nothing(
    database_urls: DatabaseUrls,
) -> None:
    config = InngestConfig.of(settings(database_urls.service, inngest_signing_key=KEY))
    assert config is not None
    types = [job_type(f"test/t{n}", events=[f"shop/{n}"]) for n in range(200)]
    async with Sdk(config) as sdk:
        app = InngestApp(sdk, config, cast("Any", None))
        await app.follow(types)
        before = time.process_time()
        for _ in range(1000):
            await app.follow(list(types))
        assert time.process_time() - before < 0.1  # looking into each would take longer
        assert app.version == 1
        await app.follow(types[1:])
        assert app.version == 2


async def test_a_trust_probe_is_answered_to_those_who_can_sign(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    answer = await post(scene, b"", query="?probe=trust")
    assert answer.status_code == 200
    scene.server.check_signature(answer)
    assert (await post(scene, b"", query="?probe=trust", signature="")).status_code == 401


async def test_a_refused_registration_is_made_again(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    scene.server.refuse_registrations = 1
    await scene.ingress.register(job_type("test/new", events=["shop/new"]))
    await scene.registered("test/new")
    assert scene.server.refuse_registrations == 0


async def test_a_server_s_sync_registers_the_app(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    before = len(scene.server.registrations)
    body = b'{"url":"http://elsewhere.example/api/inngest"}'
    answer = await scene.ingress.webhooks.put(
        PATH,
        content=body,
        headers={"x-inngest-signature": scene.server.sign(body), "host": "elsewhere.example"},
    )
    assert (answer.status_code, answer.json()["ok"]) == (200, True)
    assert answer.headers["x-inngest-sync-kind"] == "out_of_band"
    assert len(scene.server.registrations) == before + 1
    assert "elsewhere" not in json.dumps(scene.server.registrations[-1])


async def test_a_sync_that_inngest_refuses_is_no_success(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    scene.server.refuse_registrations = 1
    answer = await scene.ingress.webhooks.put(
        PATH, headers={"x-inngest-signature": scene.server.sign(b"")}
    )
    assert (answer.status_code, answer.json()["error"]) == (500, "not today")


async def test_a_sync_in_band_is_answered_with_the_functions(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    body = b'{"url":"http://elsewhere.example/api/inngest"}'
    answer = await scene.ingress.webhooks.put(
        PATH,
        content=body,
        headers={
            "x-inngest-signature": scene.server.sign(body),
            "x-inngest-sync-kind": "in_band",
            "x-inngest-server-kind": "cloud",
        },
    )
    assert answer.status_code == 200
    document = answer.json()
    assert document["app_id"] == "hybridjobs"
    assert "elsewhere" not in document["url"]
    scene.server.check_signature(answer)


async def test_introspection_is_for_those_who_can_sign(inngest: Start) -> None:
    scene = await inngest(LONG)
    signed = await scene.ingress.webhooks.get(
        PATH, headers={"x-inngest-signature": scene.server.sign(b"")}
    )
    assert signed.status_code == 200
    document = signed.json()
    assert (document["schema_version"], document["mode"]) == ("2024-05-24", "cloud")
    assert (document["function_count"], document["app_id"]) == (2, "hybridjobs")
    unsigned = await scene.ingress.webhooks.get(PATH)
    assert unsigned.status_code == 401
    assert KEY[13:] not in signed.text + unsigned.text


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_what_nobody_signed_is_refused(inngest: Start, method: str) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    before = len(scene.server.registrations)
    answer = await scene.ingress.webhooks.request(method, PATH, content=EVENT)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(scene.server.registrations) == before
    assert await scene.ingress.count() == 0


@pytest.mark.parametrize("query", ["", "?fnId=hybridjobs-test-long&stepId=step"])
@pytest.mark.parametrize("seconds", [-86_400, -310, 310])
async def test_a_captured_request_is_good_for_five_minutes(
    inngest: Start, query: str, seconds: int
) -> None:
    scene = await inngest(LONG)
    stale = scene.server.sign(EVENT, moment=time.time() + seconds)
    assert (await post(scene, EVENT, query=query, signature=stale)).status_code == 401
    assert await scene.ingress.count() == 0


async def test_a_signature_without_a_time_is_refused(inngest: Start) -> None:
    scene = await inngest(LONG)
    good = scene.server.sign(EVENT)
    for signature in (good.partition("&")[2], f"{good}&{good}", ""):
        assert (await post(scene, EVENT, signature=signature)).status_code == 401


async def test_a_call_of_a_function_that_is_gone_is_the_sdk_s_to_answer(inngest: Start) -> None:
    scene = await inngest(LONG)
    functions = await scene.registered("test/long")
    run = Run("01A", functions["test/long"], {"name": "x", "data": {}, "id": "e"})
    url = run.function["steps"]["step"]["runtime"]["url"]
    run.function["steps"]["step"]["runtime"]["url"] = url.replace("test-long", "gone")
    answer = await scene.server.call(run, "step", attempt=0, parallel=False)
    assert answer.status_code == 500
    assert answer.json()["code"] == "function_not_found"


async def test_keys_are_rotated_without_a_gap(inngest: Start) -> None:
    scene = await inngest(LONG, keys=(OLD_KEY,), inngest_signing_key_fallback=OLD_KEY)
    await scene.registered("test/long")  # which the server took by the old key
    assert len(scene.server.bearers) == 2
    async with scene.ending():
        [run] = scene.server.send("shop/order.paid", {})
        await run.ended()
    assert run.status == "completed"


async def test_an_event_of_a_plain_sender_becomes_a_job(inngest: Start) -> None:
    scene = await inngest(LONG)
    answer = await post(scene, EVENT)
    assert answer.status_code == 202
    [accepted] = answer.json()["jobs"]
    job = await scene.ingress.job(accepted["id"])
    assert (job.type, job.source, job.key) == ("test/long", "inngest", "e-1")
    assert job.payload == '{"n":12345678901234567890}'
    again = await post(scene, EVENT)
    assert (again.status_code, again.json()["replayed"]) == (202, True)
    assert again.json()["jobs"][0]["id"] == accepted["id"]
    assert await scene.ingress.count() == 1


async def test_a_plain_event_goes_through_the_mapping_of_each_type(inngest: Start) -> None:
    mapped = job_type("test/mapped", events=["shop/order.paid"], mapping={"number": "n"})
    scene = await inngest(LONG, mapped)
    accepted = (await post(scene, EVENT)).json()["jobs"]
    jobs = [await scene.ingress.job(each["id"]) for each in accepted]
    number = "12345678901234567890"
    assert {each.type: json.loads(each.payload) for each in jobs} == {
        "test/long": {"n": int(number)},
        "test/mapped": {"number": int(number)},
    }


async def test_events_of_other_sources_are_not_inngest_s_to_bring(inngest: Start) -> None:
    ours, others = ["inngest/own", "shop/own"], ["acme/user.created", "github/push"]
    scene = await inngest(
        job_type("test/mixed", events=[*ours, *others]),
        job_type("test/other", events=others),
        standard_webhook_secrets={"acme": "secret"},
    )
    functions = await scene.registered("test/mixed")
    assert "test/other" not in functions
    triggers = [each["event"] for each in functions["test/mixed"]["triggers"]]
    assert triggers == ours
    for name in others:
        answer = await post(scene, json.dumps({"name": name}).encode())
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["path"] == "/name"
    assert await scene.ingress.count() == 0
    for name in ours:
        assert (await post(scene, json.dumps({"name": name}).encode())).status_code == 202


async def test_inngest_has_its_rate_and_what_is_unsigned_spends_none(inngest: Start) -> None:
    scene = await inngest(LONG, webhook_requests_per_second=1, inngest_serve_origin=None)
    for _ in range(5):
        assert (await post(scene, EVENT, signature="")).status_code == 401
    await refused_by_rate(lambda: post(scene, b'{"name":"nobody/wants"}'))


async def test_a_plain_sender_s_quick_job_is_answered_with_its_result(
    inngest: Start, installed_handlers: None
) -> None:
    scene = await inngest(quick_type("quick/echo", events=["shop/ping"]), inline_children=1)
    answer = await post(scene, b'{"name":"shop/ping","data":{"n":1}}')
    assert answer.status_code == 200
    assert answer.json()["jobs"][0]["result"] == {"n": 1}


async def test_a_plain_event_s_end_is_not_told_to_inngest(inngest: Start) -> None:
    scene = await inngest(LONG)
    await scene.registered("test/long")
    async with scene.ending():
        [accepted] = (await post(scene, EVENT)).json()["jobs"]
        await scene.reaches(accepted["id"], Status.COMPLETED)
    await asyncio.sleep(0.6)  # two rounds of the notifier
    assert scene.server.events == []


async def test_plain_events_that_cannot_be_jobs(inngest: Start) -> None:
    schema = {"type": "object", "required": ["order"]}
    scene = await inngest(job_type("test/strict", events=["shop/x"], payloadSchema=schema))
    unmatched = await post(scene, b'{"name":"nobody/wants","data":{}}')
    assert (unmatched.status_code, unmatched.content) == (204, b"")
    faults = [
        (b'{"name":"shop/x","data":{}}', 422),
        (b'{"name":"shop/x","data":[]}', 422),
        (b'{"data":{}}', 422),
        (b"[", 400),
        (b'{"name":"shop/x","data":{"order":"\\u0000"}}', 422),
    ]
    for body, status in faults:
        assert (await post(scene, body)).status_code == status, body
    assert await scene.ingress.count() == 0


async def test_bodies_and_queries_are_bounded(inngest: Start) -> None:
    scene = await inngest(LONG)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {4 * 1024 * 1024 + 1}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.ingress.ports.webhooks)
    writer.write(head.encode())
    assert b" 413 " in await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert (await post(scene, b"{}", query="?" + "a=1&" * 40)).status_code == 400
    other = await scene.ingress.webhooks.delete(PATH)
    assert (other.status_code, other.headers["allow"]) == (405, "GET, POST, PUT")


async def test_a_large_call_does_not_hold_up_others(inngest: Start) -> None:
    scene = await inngest(LONG)
    functions = await scene.registered("test/long")
    rows = [{"id": n, "name": f"row {n}", "x": n / 7} for n in range(25_000)]
    run = Run("01LARGE", functions["test/long"], {"name": "x", "data": {"rows": rows}, "id": "e"})
    body = call_body(run, "step", attempt=0, parallel=False)
    call = asyncio.create_task(scene.server.post(run.function, "step", body))
    longest = 0.0
    loop = asyncio.get_running_loop()
    while not call.done():
        before = loop.time()
        await asyncio.sleep(0)
        longest = max(longest, loop.time() - before)
    assert call.result().status_code == 206
    assert longest < 0.5  # the SDK takes about a second for it


async def test_more_large_calls_than_fit_are_refused_for_now(inngest: Start) -> None:
    scene = await inngest(LONG)
    functions = await scene.registered("test/long")
    data = {"text": "x" * 2_000_000}  # which is sent twice: as the event, and among the events
    run = Run("01LARGE", functions["test/long"], {"name": "x", "data": data, "id": "e"})
    body = call_body(run, "step", attempt=0, parallel=False)
    # Fewer than the ingress as a whole may hold.
    answers = await asyncio.gather(
        *(scene.server.post(run.function, "step", body) for _ in range(26))
    )
    assert {each.status_code for each in answers} == {206, 503}
    refused = next(each for each in answers if each.status_code == 503)
    assert refused.headers["retry-after"] == "5"
    assert "large calls" in refused.json()["detail"]


async def test_without_a_serve_origin_there_is_no_sync(inngest: Start) -> None:
    scene = await inngest(LONG, inngest_serve_origin=None)
    answer = await scene.ingress.webhooks.put(
        PATH, headers={"x-inngest-signature": scene.server.sign(b"")}
    )
    assert answer.status_code == 503
    assert "HYBRIDJOBS_INNGEST_SERVE_ORIGIN" in answer.json()["detail"]
    assert scene.server.registrations == []


async def test_without_a_signing_key_it_is_closed(ingress: Running) -> None:
    for method in ("GET", "POST", "PUT"):
        answer = await ingress.webhooks.request(method, PATH, content=EVENT)
        assert answer.status_code == 503
        assert "HYBRIDJOBS_INNGEST_SIGNING_KEY" in answer.json()["detail"]


async def test_development_mode_takes_what_nobody_signed(inngest: Start) -> None:
    scene = await inngest(LONG, inngest_dev=True, inngest_signing_key=None)
    answer = await scene.ingress.webhooks.get(PATH)
    assert (answer.status_code, answer.json()["mode"]) == (200, "dev")
    assert (await post(scene, EVENT, signature="")).status_code == 202


async def test_the_sdk_s_development_variable_stops_the_start(
    database_urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNGEST_DEV", "1")
    with pytest.raises(ConfigurationError, match="INNGEST_DEV"):
        async with running(database_urls.service, inngest_signing_key=KEY):
            pass
