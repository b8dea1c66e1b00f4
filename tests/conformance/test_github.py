"""GitHub's deliveries, signed by Octokit: @octokit/webhooks-methods, @octokit/webhooks-examples."""

import pytest

from tests.builders import job_type
from tests.conformance.conftest import Sender
from tests.integration.ingress.conftest import SECRET, Running
from tests.recorded import Delivery, deliveries, signed_headers

PATH = "/webhooks/github"


def signed(sender: Sender, delivery: Delivery, *, secret: str = SECRET) -> dict[str, str]:
    signature = sender("github", secret=secret, body=delivery.payload.decode())
    return {**signed_headers("", delivery), "x-hub-signature-256": signature}


async def test_every_example_is_routed_by_its_event_and_its_action(
    sources: Running, sender: Sender
) -> None:
    names = {
        f"github/{each.event}" + (f".{each.action}" if each.action else "")
        for each in deliveries()
        if each.event != "ping"
    }
    types = [job_type(f"test/{n}", events=[name]) for n, name in enumerate(sorted(names))]
    await sources.register(*types)
    wanted = {each.spec.events[0]: each.spec.type for each in types}
    for delivery in deliveries():
        answer = await sources.webhooks.post(
            PATH, content=delivery.payload, headers=signed(sender, delivery)
        )
        name = f"github/{delivery.event}" + (f".{delivery.action}" if delivery.action else "")
        if delivery.event == "ping":
            assert (answer.status_code, answer.json()) == (200, {"pong": True})
        else:
            assert answer.status_code == 202, (name, answer.text)
            assert wanted[name] in {job["type"] for job in answer.json()["jobs"]}


async def test_another_secret_or_body_is_refused(sources: Running, sender: Sender) -> None:
    delivery = deliveries()[0]
    by_another = signed(sender, delivery, secret="another")
    ours = signed(sender, delivery)
    for body, headers in ((delivery.payload, by_another), (delivery.payload + b"\n", ours)):
        answer = await sources.webhooks.post(PATH, content=body, headers=headers)
        assert answer.status_code == 401


@pytest.mark.parametrize("body", ["é€😀", '{"a":"\\u20ac"}'])
async def test_the_signature_is_of_the_bytes(sources: Running, sender: Sender, body: str) -> None:
    delivery = Delivery("push", body.encode(), 0)
    answer = await sources.webhooks.post(
        PATH, content=delivery.payload, headers=signed(sender, delivery)
    )
    assert answer.status_code == (204 if body.startswith("{") else 400)
