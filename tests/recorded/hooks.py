"""GitHub's side of webhooks: delivers over HTTP, keeps what came of it, delivers again if asked.

As documented: https://docs.github.com/en/rest/apps/webhooks and …/rest/repos/webhooks. Every try is
a delivery with an id of its own; those of one event share its guid. Nothing is tried again unasked.
"""

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.recorded.recording import Delivery, signed_headers
from tests.recorded.server import Endpoint, GitHubError

_PATIENCE_SECONDS = 10
_ids = itertools.count(92_000_000_000)


@dataclass(frozen=True)
class Try:
    """One delivery."""

    id: int
    guid: str
    delivery: Delivery
    delivered_at: datetime
    redelivery: bool
    status_code: int  # 0: nobody answered
    seconds: float = 0.0

    def item(self) -> dict[str, Any]:
        """As the list shows it."""
        status = "OK" if 200 <= self.status_code < 300 else "Invalid HTTP Response"
        return {
            "id": self.id,
            "guid": self.guid,
            "delivered_at": self.delivered_at.isoformat().replace("+00:00", "Z"),
            "redelivery": self.redelivery,
            "duration": round(self.seconds, 2),
            "status": f"{status}: {self.status_code}" if status != "OK" else status,
            "status_code": self.status_code,
            "event": self.delivery.event,
            "action": self.delivery.action,
            "installation_id": None,
            "repository_id": None,
            "throttled_at": None,
        }


@dataclass
class HookDouble:
    """One hook: `path` in the API, `url` that it delivers to, `target` in its headers."""

    path: str
    url: str
    secret: str
    target: str
    authorized: Callable[[str], bool]
    tries: list[Try] = field(default_factory=list)
    running: set[asyncio.Task[Try]] = field(default_factory=set)

    async def send(self, delivery: Delivery, guid: str, *, redelivery: bool = False) -> Try:
        """Deliver once."""
        headers = {
            **signed_headers(self.secret, delivery, delivery_id=guid),
            "x-github-hook-installation-target-type": self.target,
        }
        began, status = time.monotonic(), 0
        try:
            async with httpx.AsyncClient(timeout=_PATIENCE_SECONDS, trust_env=False) as client:
                answer = await client.post(self.url, content=delivery.payload, headers=headers)
                status = answer.status_code
        except httpx.TransportError:
            pass
        seconds = time.monotonic() - began
        made = Try(next(_ids), guid, delivery, datetime.now(UTC), redelivery, status, seconds)
        self.tries.insert(0, made)
        return made

    def age(self, by: timedelta) -> None:
        """Make every try so much older."""
        self.tries = [
            Try(t.id, t.guid, t.delivery, t.delivered_at - by, t.redelivery, t.status_code)
            for t in self.tries
        ]

    async def settled(self) -> None:
        """Until everything that was asked for has been tried."""
        while self.running:
            await asyncio.wait(self.running)

    async def list_(self, request: Request) -> Response:
        """GET …/deliveries: the newest first, by cursor."""
        self._authorize(request)
        query = request.query_params
        size = min(int(query.get("per_page", 30)), 100)
        start = 0
        if "cursor" in query:
            known = [each.id for each in self.tries]
            start = known.index(int(query["cursor"].removeprefix("v1_")))
        page = self.tries[start : start + size]
        headers = {}
        if start + size < len(self.tries):
            after = self.tries[start + size].id
            url = request.url.include_query_params(per_page=size, cursor=f"v1_{after}")
            headers["link"] = f'<{url}>; rel="next"'
        return JSONResponse([each.item() for each in page], headers=headers)

    async def attempt(self, request: Request) -> Response:
        """POST …/deliveries/ID/attempts: accepted now, delivered soon."""
        self._authorize(request)
        number = request.path_params["delivery"]
        found = next((each for each in self.tries if each.id == number), None)
        if found is None:
            raise GitHubError(404, "Not Found")
        again = self.send(found.delivery, found.guid, redelivery=True)
        task = asyncio.create_task(again)
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        return JSONResponse({}, 202)

    def routes(self) -> dict[tuple[str, str], Endpoint]:
        """Its endpoints, by method and path."""
        return {
            ("GET", f"{self.path}/deliveries"): self.list_,
            ("POST", f"{self.path}/deliveries/{{delivery:int}}/attempts"): self.attempt,
        }

    def _authorize(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not self.authorized(token):
            raise GitHubError(401, "Bad credentials")
