"""`hybridjobs operator` as a process of its own: how it ends, and what it says."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from hybridjobs.kube.client import HYBRIDJOB_SCHEDULES, PODS
from tests.conftest import DatabaseUrls, free_port
from tests.integration.controller.proxy import Proxy
from tests.integration.controller.watching import Watching

pytestmark = pytest.mark.timeout(240)  # where the machine is busy, starting takes its time

COMMAND = "from hybridjobs.cli import main; main()"
CHECK_SECONDS, STALE_SECONDS = 0.5, 5


class Operator:
    """The process, and what it says of itself."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        assert process.stderr is not None
        self._log = asyncio.create_task(process.stderr.read())
        self._url = f"http://127.0.0.1:{port}"

    async def probe(self, path: str) -> int | None:
        """The status of the answer; None where there is none."""
        async with httpx.AsyncClient(base_url=self._url, timeout=30) as client:
            try:
                return (await client.get(path)).status_code
            except httpx.TransportError:
                return None

    async def answers(self, path: str, status: int) -> None:
        """Wait until a probe is answered so."""
        async with asyncio.timeout(90):
            while await self.probe(path) != status:
                assert self.process.returncode is None, await self.log()
                await asyncio.sleep(0.05)

    async def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        async with asyncio.timeout(90):
            return await self.process.wait()

    async def log(self) -> str:
        return (await self._log).decode()


@asynccontextmanager
async def _started(
    proxy: Proxy, namespace: str, database_url: str, folder: Path, stale_seconds: float
) -> AsyncIterator[Operator]:
    port = free_port()
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "proxy",
                "clusters": [{"name": "proxy", "cluster": {"server": proxy.url}}],
                "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
                "users": [{"name": "proxy", "user": {}}],
            }
        )
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", COMMAND, "operator"),
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "HYBRIDJOBS_DATABASE_URL": database_url,
            "HYBRIDJOBS_BIND": "127.0.0.1",
            "HYBRIDJOBS_HEALTH_PORT": str(port),
            "HYBRIDJOBS_NAMESPACE": namespace,
            "HYBRIDJOBS_WORKER_IMAGE": "hybridjobs:none",
            "HYBRIDJOBS_WORKER_API_URL": "http://none:8082",
            "HYBRIDJOBS_WATCH_CHECK_SECONDS": str(CHECK_SECONDS),
            "HYBRIDJOBS_WATCH_STALE_SECONDS": str(stale_seconds),
        },
    )
    operator = Operator(process, port)
    try:
        yield operator
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await operator.log()


@pytest.fixture
async def operator(
    proxy: Proxy,
    namespace: str,
    database_urls: DatabaseUrls,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Operator]:
    """One that is ready, behind the proxy; a parameter is the seconds after which it is stale."""
    stale_seconds = getattr(request, "param", STALE_SECONDS)
    url = database_urls.service
    async with _started(proxy, namespace, url, tmp_path, stale_seconds) as operator:
        await operator.answers("/readyz", 200)
        yield operator


# Where the machine is busy, several seconds lie between two checks.
@pytest.mark.parametrize("operator", [25], indirect=True)
async def test_with_a_stale_watch_it_is_first_not_ready_and_then_ends(
    operator: Operator, proxy: Proxy, changes: Watching
) -> None:
    proxy.silent.add(HYBRIDJOB_SCHEDULES)
    await changes.make(HYBRIDJOB_SCHEDULES, "unseen")
    await operator.answers("/readyz", 503)
    assert await operator.probe("/healthz") == 200
    assert await operator.ended() == 1
    assert "hybridjobschedules: the watch has not told" in await operator.log()


async def test_when_kopf_fails_it_ends_and_says_why(operator: Operator, proxy: Proxy) -> None:
    failure = {"code": 500, "reason": "InternalError", "message": "played by the test"}
    await proxy.tell(PODS, {"type": "ERROR", "object": failure})
    assert await operator.ended() == 1
    said = [
        line["error"]
        for text in (await operator.log()).splitlines()
        if text.startswith("{")
        and (line := json.loads(text))["event"] == "the operator ends, to be started anew"
    ]
    assert len(said) == 1
    assert "played by the test" in said[0]


async def test_an_api_server_away_for_a_while_is_no_reason_to_end(
    operator: Operator, proxy: Proxy
) -> None:
    proxy.status = 503
    await operator.answers("/readyz", 503)
    await asyncio.sleep(2 * STALE_SECONDS)
    assert await operator.probe("/healthz") == 200
    proxy.status = None
    await operator.answers("/readyz", 200)
    operator.process.send_signal(signal.SIGTERM)
    assert await operator.ended() == 0
