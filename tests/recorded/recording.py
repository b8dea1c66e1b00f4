"""GitHub's webhook deliveries as they were recorded: @octokit/webhooks-examples."""

import hmac
import json
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from tests.recorded.paths import EXAMPLES, require


@dataclass(frozen=True)
class Delivery:
    """One delivery: the event's name, the body's bytes, and its place in the recording."""

    event: str
    payload: bytes
    index: int

    @property
    def action(self) -> str | None:
        """The payload's action, if its event has actions."""
        action: str | None = self.document.get("action")
        return action

    @property
    def document(self) -> dict[str, Any]:
        """The payload's value."""
        document: dict[str, Any] = json.loads(self.payload)
        return document

    @property
    def id(self) -> str:
        """What X-GitHub-Delivery says: the same for the same delivery, every time."""
        return str(uuid5(NAMESPACE_URL, f"recorded:{self.index}"))


@cache
def deliveries() -> tuple[Delivery, ...]:
    """Every recorded delivery, in the recording's order."""
    events = json.loads(require(EXAMPLES).read_bytes())
    recorded = ((event["name"], example) for event in events for example in event["examples"])
    return tuple(
        Delivery(
            name, json.dumps(example, separators=(",", ":"), ensure_ascii=False).encode(), index
        )
        for index, (name, example) in enumerate(recorded)
    )


def signed_headers(
    secret: str, delivery: Delivery, *, delivery_id: str | None = None
) -> dict[str, str]:
    """The headers that GitHub sends with a delivery.

    Source: https://docs.github.com/en/webhooks/webhook-events-and-payloads#delivery-headers
    """
    signature = hmac.digest(secret.encode(), delivery.payload, "sha256").hex()
    return {
        "content-type": "application/json",
        "user-agent": "GitHub-Hookshot/044aadd",
        "x-github-delivery": delivery_id or delivery.id,
        "x-github-event": delivery.event,
        "x-github-hook-id": "292430182",
        "x-github-hook-installation-target-id": "186853002",
        "x-github-hook-installation-target-type": "repository",
        "x-hub-signature-256": f"sha256={signature}",
    }
