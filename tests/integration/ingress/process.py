"""`hybridjobs ingress` as a process of its own."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest

from tests.conftest import free_port
from tests.integration.ingress.conftest import SECRET, TOKEN
from tests.recorded import deliveries, signed_headers
from tests.waiting import eventually

OPENED = next(d for d in deliveries() if d.event == "pull_request" and d.action == "opened")
COMMAND = "from hybridjobs.cli import main; main()"


class Process:
    """`hybridjobs ingress`, without a cluster."""

    def __init__(self, process: asyncio.subprocess.Process, ports: dict[str, int]) -> None:
        self.process = process
        self.ports = ports
        assert process.stderr is not None
        self._log = asyncio.create_task(process.stderr.read())

    def url(self, listener: str) -> str:
        return f"http://127.0.0.1:{self.ports[listener]}"

    async def ready(self) -> None:
        async with httpx.AsyncClient(timeout=30) as client:

            async def is_ready_or_over() -> bool:
                if self.process.returncode is not None:
                    return True
                try:
                    return (await client.get(f"{self.url('health')}/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            with suppress(TimeoutError):
                await eventually(is_ready_or_over)
                if self.process.returncode is None:
                    return
        pytest.fail(f"not ready: {await self.end(signal.SIGKILL)}")

    async def deliver(self, client: httpx.AsyncClient, delivery_id: str) -> int:
        answer = await client.post(
            f"{self.url('webhook')}/webhooks/github",
            content=OPENED.payload,
            headers=signed_headers(SECRET, OPENED, delivery_id=delivery_id),
        )
        return answer.status_code

    async def end(self, how: signal.Signals) -> tuple[int, str]:
        """Send the signal; the exit code and all of the log."""
        if self.process.returncode is None:
            self.process.send_signal(how)
        code = await self.process.wait()
        return code, (await self._log).decode()


@asynccontextmanager
async def started(database_url: str, **environment: str) -> AsyncIterator[Process]:
    first = free_port(adjacent=4)
    ports = {
        name: first + place for place, name in enumerate(("webhook", "api", "worker", "health"))
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        COMMAND,
        "ingress",
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            **{f"HYBRIDJOBS_{name.upper()}_PORT": str(port) for name, port in ports.items()},
            "HYBRIDJOBS_DATABASE_URL": database_url,
            "HYBRIDJOBS_BIND": "127.0.0.1",
            "HYBRIDJOBS_DISPATCH": "false",
            "HYBRIDJOBS_GITHUB_WEBHOOK_SECRET": SECRET,
            "HYBRIDJOBS_API_TOKEN": TOKEN,
            **environment,
        },
    )
    running = Process(process, ports)
    try:
        yield running
    finally:
        await running.end(signal.SIGKILL)
