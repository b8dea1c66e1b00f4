"""The simulated GitHub as a process of its own, which tests and benches set and ask by HTTP."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.conftest import free_port
from tests.recorded.paths import DATA, require

Row = dict[str, Any]


class Simulation:
    """The process' switches under /_test."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.url = str(client.base_url).rstrip("/")

    async def set(self, switch: str, **plan: object) -> None:
        """POST /_test/SWITCH."""
        answer = await self._client.post(f"/_test/{switch}", json=plan)
        answer.raise_for_status()

    async def ask(self, switch: str, **query: str) -> Any:
        """GET /_test/SWITCH: its JSON."""
        answer = await self._client.get(f"/_test/{switch}", params=query)
        answer.raise_for_status()
        return answer.json()

    async def truth(self, full_name: str) -> list[tuple[str, Row]]:
        """Tables and rows of all that must end up there."""
        answer = await self._client.get("/_test/truth", params={"fullName": full_name})
        answer.raise_for_status()
        rows = [json.loads(line) for line in answer.text.splitlines()]
        return [(row.pop("table"), row) for row in rows]


@asynccontextmanager
async def simulation() -> AsyncIterator[Simulation]:
    """The process until the end of the block."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.recorded.server"),
        *("--data", str(require(DATA)), "--port", str(port)),
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            for _ in range(300):
                if await _answers(client):
                    break
                await asyncio.sleep(0.1)
            yield Simulation(client)
    finally:
        process.terminate()
        await process.wait()


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/_test/health")).is_success
    except httpx.TransportError:
        return False
