"""Events serialised by the CloudEvents SDK of npm."""

import base64
import json
from typing import Any

import httpx
import pytest

from tests.builders import job_type
from tests.conformance.conftest import Sender
from tests.integration.ingress.conftest import Running
from tests.integration.ingress.sources.conftest import CLOUDEVENTS_TOKEN

EVENT = {
    "id": "b25e2717-a470-45a0-8231-985a99aa9416",
    "source": "https://example.com/shop?a=b#c",
    "type": "com.example.order.paid",
    "subject": 'a "quoted" 100% Zoë 😀',
    "time": "2026-11-24T09:30:00.123Z",
    "dataschema": "https://example.com/schema.json",
    "datacontenttype": "application/json",
    "tenant": "north",
    "data": {"amount": 12.5, "name": "Zoë 😀", "lines": [1, None, True]},
}


async def send(ingress: Running, message: dict[str, Any], **changes: str) -> httpx.Response:
    headers = {**message["headers"], "authorization": f"Bearer {CLOUDEVENTS_TOKEN}", **changes}
    return await ingress.webhooks.post(
        "/webhooks/cloudevents", content=message["body"], headers=headers
    )


def made(sender: Sender, mode: str, event: dict[str, Any]) -> dict[str, Any]:
    """The event as the SDK writes it, with its body as bytes."""
    message = sender(mode, event=event)
    return {**message, "body": base64.b64decode(message["body"])}


async def payload_of(ingress: Running, answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    job = await ingress.job(answer.json()["jobs"][0]["id"])
    payload: dict[str, Any] = json.loads(job.payload)
    return payload


@pytest.fixture
async def paid(sources: Running) -> None:
    await sources.register(job_type("test/paid", events=["com.example.order.paid"]))


@pytest.mark.parametrize("mode", ["structured", "binary"])
@pytest.mark.usefixtures("paid")
async def test_both_modes_give_the_event(sources: Running, sender: Sender, mode: str) -> None:
    event = EVENT
    if mode == "binary":
        # The SDK does not encode what headers cannot carry; spec.md leaves that to its users.
        event = {**EVENT, "subject": "a%20%22quoted%22%20100%25%20Zo%C3%AB"}
    answer = await send(sources, made(sender, mode, event))
    payload = await payload_of(sources, answer)
    expected = {**EVENT, "specversion": "1.0"}
    if mode == "binary":
        expected["subject"] = 'a "quoted" 100% Zoë'
    assert payload == expected


@pytest.mark.parametrize("mode", ["structured", "binary"])
@pytest.mark.usefixtures("paid")
async def test_binary_data_in_either_mode(sources: Running, sender: Sender, mode: str) -> None:
    data = base64.b64encode(b"\x00\xff").decode()
    event = {
        **EVENT,
        "subject": "s",
        "datacontenttype": "application/octet-stream",
        "data_base64": data,
    }
    del event["data"]
    answer = await send(sources, made(sender, mode, event))
    assert (await payload_of(sources, answer))["data_base64"] == data


@pytest.mark.usefixtures("paid")
async def test_events_of_the_sdk_in_a_batch(sources: Running, sender: Sender) -> None:
    bodies = [
        made(sender, "structured", {**EVENT, "id": str(number)})["body"] for number in range(5)
    ]
    batch = {
        "headers": {"content-type": "application/cloudevents-batch+json; charset=utf-8"},
        "body": b"[%s]" % b",".join(bodies),
    }
    answer = await send(sources, batch)
    assert [len(each["jobs"]) for each in answer.json()["events"]] == [1] * 5


@pytest.mark.parametrize("mode", ["structured", "binary"])
@pytest.mark.usefixtures("paid")
async def test_tampered_ones_are_refused(sources: Running, sender: Sender, mode: str) -> None:
    event = {**EVENT, "subject": "s"}
    message = made(sender, mode, event)
    assert (await send(sources, message, authorization="Bearer no")).status_code == 401
    cut = {**message, "body": message["body"][:-1]}
    assert (await send(sources, cut)).status_code == 400
    if mode == "binary":
        assert (await send(sources, message, **{"ce-id": ""})).status_code == 422
        assert (await send(sources, message, **{"ce-time": "now"})).status_code == 422
    assert await sources.count() == 0
