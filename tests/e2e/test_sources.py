"""Every source of webhooks, open as the chart's values say: from its event to a pod's result."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import httpx
import pytest
from svix.webhooks import Webhook

from tests.e2e.conftest import INNGEST_EVENT_KEY, INNGEST_SIGNING_KEY, STANDARD_SECRET
from tests.e2e.release import Access, Release, delivery_of, eventually, unique_key
from tests.integration.ingress.inngest.server import InngestServer

pytestmark = pytest.mark.timeout(180)

INNGEST_PATH = "/api/inngest"
WRONG_STANDARD_SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"

Send = Callable[[str], Awaitable[httpx.Response]]


async def _all(*answers: Awaitable[httpx.Response]) -> list[httpx.Response]:
    return list(await asyncio.gather(*answers))


@pytest.fixture
def senders(release: Release, access: Access) -> dict[str, tuple[Send, str]]:
    """By source: what sends one event of it, signed with a secret, and the right secret."""

    async def github(secret: str) -> httpx.Response:
        delivery = delivery_of("issues", "opened")
        return await access.deliver(delivery, delivery_id=unique_key(), secret=secret)

    async def standard(secret: str) -> httpx.Response:
        id_, now = unique_key(), datetime.now(UTC)
        body = json.dumps({"type": "order.paid", "data": {"order": 7}})
        headers = {
            "webhook-id": id_,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(secret).sign(id_, now, body),
        }
        url = f"{access.webhooks}/webhooks/standard/acme"
        return await access.client.post(url, content=body, headers=headers)

    async def cloudevents(token: str) -> httpx.Response:
        event = {
            "specversion": "1.0",
            "id": unique_key(),
            "source": "https://shop.example",
            "type": "com.example.order.paid",
            "data": {"order": 8},
        }
        headers = {
            "content-type": "application/cloudevents+json",
            "authorization": f"Bearer {token}",
        }
        url = f"{access.webhooks}/webhooks/cloudevents"
        return await access.client.post(url, content=json.dumps(event), headers=headers)

    return {
        "github": (github, access.webhook_secret),
        "standard:acme": (standard, STANDARD_SECRET),
        "cloudevents": (cloudevents, release.secret("cloudevents", "token")),
    }


async def test_an_event_of_each_source_becomes_a_job_that_completes_in_a_pod(
    access: Access, senders: dict[str, tuple[Send, str]]
) -> None:
    answers = await _all(*(send(secret) for send, secret in senders.values()))
    assert [answer.status_code for answer in answers] == [202] * 3, [each.text for each in answers]
    accepted = [
        next(job["id"] for job in answer.json()["jobs"] if job["type"] == "test/event")
        for answer in answers
    ]
    jobs = await asyncio.gather(*map(access.until, accepted))
    assert [job["source"] for job in jobs] == list(senders)
    assert [job["status"] for job in jobs] == ["completed"] * 3
    issue = delivery_of("issues", "opened").document["issue"]["number"]
    assert [job["result"] for job in jobs] == [{"issue": issue}, {"order": 7}, {"order": 8}]


async def test_an_event_that_another_secret_signed_is_refused(
    access: Access, senders: dict[str, tuple[Send, str]]
) -> None:
    count = "SELECT count(*) FROM hybridjobs.background_jobs WHERE type = 'test/event'"
    before = await access.sql(count)
    answers = await _all(
        *(
            send(WRONG_STANDARD_SECRET if secret == STANDARD_SECRET else "another")
            for send, secret in senders.values()
        )
    )
    assert [answer.status_code for answer in answers] == [401] * 3
    assert await access.sql(count) == before


async def test_inngest_knows_the_app_and_syncs_it_and_its_run_ends_as_its_pod_does(
    access: Access, inngest: InngestServer
) -> None:
    async def registered() -> bool | None:
        known = inngest.functions if inngest.registrations else {}
        return "hybridjobs-test-echo" in known or None

    await eventually(registered, seconds=60, what="the ingress to register by itself")
    inngest.app_at = access.webhooks
    url = f"{access.webhooks}{INNGEST_PATH}"
    signature = {"x-inngest-signature": inngest.sign(b"")}
    read, strange, synced, stale = await _all(
        access.client.get(url, headers=signature),
        access.client.get(url),
        access.client.put(url, headers=signature),
        access.client.put(
            url, headers={"x-inngest-signature": inngest.sign(b"", moment=time.time() - 400)}
        ),
    )
    assert (read.status_code, read.json()["mode"]) == (200, "cloud")
    assert (synced.status_code, synced.json()["ok"]) == (200, True), synced.text
    assert (strange.status_code, stale.status_code) == (401, 401)
    registrations = len(inngest.registrations)
    assert (await access.client.put(url)).status_code == 401
    assert len(inngest.registrations) == registrations

    inngest.refuse_events = 1
    [run] = inngest.send("shop/order.paid", {"order": 9})
    await run.ended()
    assert (run.status, run.output) == ("completed", {"order": 9})
    assert inngest.refuse_events == 0
    [event] = [each for each in inngest.events if each["data"].get("run_id") == run.id]
    job = await access.job(event["data"]["job_id"])
    assert (job["source"], job["status"], job["key"]) == ("inngest", "completed", run.id)
    assert job["attempts"][0]["podName"].startswith(f"hj-{job['id']}-1-")


async def test_no_secret_is_in_the_logs(
    release: Release, access: Access, senders: dict[str, tuple[Send, str]]
) -> None:
    token = release.secret("cloudevents", "token")
    answers = await _all(
        access.client.post(f"{access.webhooks}/webhooks/cloudevents?access_token={token}"),
        access.client.get(f"{access.api}/api/jobs", headers={"Authorization": token}),
        *(send(secret) for send, secret in senders.values()),
    )
    assert [answer.status_code for answer in answers] == [422, 401, 202, 202, 202]
    secrets = {
        access.token,
        INNGEST_EVENT_KEY,
        INNGEST_SIGNING_KEY.rpartition("-")[2],
        release.secret("callbacks", "default"),
        *(release.secret("database", key) for key in ("password", "servicePassword")),
        *(secret for _, secret in senders.values()),
    }
    part_of = "--selector=app.kubernetes.io/instance=hybridjobs"
    all_of_it = ("--all-containers", "--tail=-1", "--max-log-requests=20")
    log = release.kubectl("logs", part_of, *all_of_it)
    assert "ingress ready" in log
    assert [secret for secret in secrets if secret in log] == []
