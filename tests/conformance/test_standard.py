"""Messages signed by the libraries of Standard Webhooks: standardwebhooks (npm), svix (Python)."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest
from svix.webhooks import Webhook

from tests.builders import job_type
from tests.conformance.conftest import Sender
from tests.integration.ingress.conftest import Running
from tests.integration.ingress.sources.conftest import STANDARD_SECRETS

ENCODED, RAW = STANDARD_SECRETS["acme"].split(", ")
BODY = '{"type":"user.created","timestamp":"2026-11-24T09:30:00Z","data":{"name":"Zoë 😀"}}'

Sign = Callable[[str, int, str], str]


@pytest.fixture(params=["standardwebhooks", "standardwebhooks, raw secret", "svix"])
def sign(request: pytest.FixtureRequest, sender: Sender) -> Sign:
    def by_svix(id_: str, timestamp: int, body: str) -> str:
        return Webhook(ENCODED).sign(id_, datetime.fromtimestamp(timestamp, UTC), body)

    def by_node(make: str, secret: str) -> Sign:
        return lambda id_, timestamp, body: sender(
            make, secret=secret, id=id_, timestamp=timestamp, body=body
        )

    signers = {
        "standardwebhooks": by_node("standard", ENCODED),
        "standardwebhooks, raw secret": by_node("standardRaw", RAW),
        "svix": by_svix,
    }
    return signers[request.param]


async def send(
    ingress: Running, sign: Sign, *, prefix: str = "webhook", at: int = 0, body: str = BODY
) -> httpx.Response:
    now = int(time.time()) + at
    headers = {
        f"{prefix}-id": "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
        f"{prefix}-timestamp": str(now),
        f"{prefix}-signature": sign("msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", now, BODY),
    }
    return await ingress.webhooks.post(
        "/webhooks/standard/acme", content=body.encode(), headers=headers
    )


@pytest.mark.parametrize("prefix", ["webhook", "svix"])
async def test_a_signed_message_is_a_job(sources: Running, sign: Sign, prefix: str) -> None:
    await sources.register(job_type("test/user", events=["acme/user.created"]))
    answer = await send(sources, sign, prefix=prefix)
    assert answer.status_code == 202, answer.text
    job = await sources.job(answer.json()["jobs"][0]["id"])
    assert (job.payload, job.key) == (BODY, "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W")


async def test_what_was_changed_or_is_old_is_refused(sources: Running, sign: Sign) -> None:
    changed = await send(sources, sign, body=BODY.replace("Zoë", "Zoe"))
    old = await send(sources, sign, at=-400)
    early = await send(sources, sign, at=400)
    assert [each.status_code for each in (changed, old, early)] == [401, 401, 401]
