"""Postgres stopped, killed and frozen under load: every 2xx has its row, the rest is 503."""

import asyncio
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from hybridjobs.store.embedded import EmbeddedPostgres
from hybridjobs.store.migrate import migrate
from tests.builders import job_type
from tests.integration.ingress.conftest import SECRET, Running, running
from tests.recorded import Delivery, deliveries, signed_headers

OPENED = next(d for d in deliveries() if d.event == "pull_request" and d.action == "opened")
UNKNOWN = next(d for d in deliveries() if d.event == "star")


class Load:
    """Deliveries from several clients until it is stopped, and how each was answered."""

    def __init__(self, ingress: Running) -> None:
        self._ingress = ingress
        self._stopping = False
        self.accepted: set[str] = set()
        self.refused: set[int] = set()
        self.retry_after: set[str | None] = set()

    async def run(self, clients: int = 16) -> None:
        await asyncio.gather(*(self._client(number) for number in range(clients)))

    def stop(self) -> None:
        self._stopping = True

    async def _client(self, number: int) -> None:
        sent = 0
        while not self._stopping:
            sent += 1
            delivery_id = f"{number}-{sent}"
            answer = await self._send(delivery_id)
            if answer.status_code == 202:
                self.accepted.add(delivery_id)
            else:
                self.refused.add(answer.status_code)
                self.retry_after.add(answer.headers.get("retry-after"))
                await asyncio.sleep(0.05)

    async def _send(self, delivery_id: str) -> httpx.Response:
        return await self._ingress.webhooks.post(
            "/webhooks/github",
            content=OPENED.payload,
            headers=signed_headers(SECRET, OPENED, delivery_id=delivery_id),
        )


async def _keys(ingress: Running) -> set[str]:
    async with ingress.database.connection() as connection:
        cursor = await connection.execute("SELECT key FROM hybridjobs.background_jobs")
        return {row["key"] for row in await cursor.fetchall()}


async def _progress(load: Load) -> None:
    before = len(load.accepted)
    for _ in range(600):
        if len(load.accepted) > before + 50:
            return
        await asyncio.sleep(0.05)
    pytest.fail("nothing more is accepted")


async def _trouble(load: Load) -> None:
    for _ in range(600):
        if load.refused:
            return
        await asyncio.sleep(0.05)
    pytest.fail("nothing was refused")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_every_2xx_has_its_row_when_postgres_goes_and_comes_back(
    durable_postgres: EmbeddedPostgres, how: signal.Signals
) -> None:
    await migrate(durable_postgres.url, logins={})
    async with running(durable_postgres.url, inline_children=0) as ingress:
        await ingress.register(job_type(events=["github/pull_request.opened"]))
        load = Load(ingress)
        task = asyncio.create_task(load.run())
        await _progress(load)
        await asyncio.to_thread(durable_postgres.stop, how)
        await _trouble(load)
        ready = await ingress.health.get("/readyz")
        await asyncio.to_thread(durable_postgres.start)
        await _progress(load)
        load.stop()
        await task
        assert load.refused == {503}
        assert None not in load.retry_after
        assert load.accepted <= await _keys(ingress)
        assert ready.status_code == 200


GITHUB_WAITS_SECONDS = 10


@pytest.mark.timeout(120)
async def test_with_a_frozen_postgres_github_has_its_answer_in_time_and_nothing_else_stops(
    durable_postgres: EmbeddedPostgres,
) -> None:
    await migrate(durable_postgres.url, logins={})
    async with running(durable_postgres.url, inline_children=0) as ingress:
        await ingress.register(job_type(events=["github/pull_request.opened"]))
        load = Load(ingress)
        task = asyncio.create_task(load.run(clients=4))
        await _progress(load)
        process = durable_postgres._process
        assert process is not None
        frozen = _family(process.pid)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            waiting = []
            for number in range(15):
                # Of an event that no type names, it is the database that knows.
                waiting += [
                    asyncio.create_task(_answered(ingress, OPENED, f"known-{number}")),
                    asyncio.create_task(_answered(ingress, UNKNOWN, f"unknown-{number}")),
                ]
                # The loop is never blocked: each of these would wait for it.
                assert (await ingress.health.get("/healthz", timeout=10)).status_code == 200
                await asyncio.sleep(0.7)
            answers = await asyncio.gather(*waiting)
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        assert {status for status, _ in answers[::2]} == {503}
        # The first may come while what was read of the types just before still holds.
        assert {status for status, _ in answers[1::2]} - {204} == {503}
        assert max(seconds for _, seconds in answers) < GITHUB_WAITS_SECONDS
        await _progress(load)
        load.stop()
        await task
        assert load.refused == {503}
        assert load.accepted <= await _keys(ingress)


async def _answered(ingress: Running, delivery: Delivery, id_: str) -> tuple[int, float]:
    """The status and after how many seconds it came."""
    began = time.monotonic()
    answer = await ingress.webhooks.post(
        "/webhooks/github",
        content=delivery.payload,
        headers=signed_headers(SECRET, delivery, delivery_id=id_),
    )
    return answer.status_code, time.monotonic() - began


def _family(pid: int) -> list[int]:
    """The postmaster and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]
