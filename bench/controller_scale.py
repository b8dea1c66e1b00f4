"""The operator beside ten thousand running jobs, and the sweep over a hundred thousand rows."""

import asyncio
import json
import os
import re
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg

from bench.controller_nodes import POD_TEMPLATE, fake_nodes
from hybridjobs.dispatch.cluster import ClusterRuntime
from hybridjobs.dispatch.loop import Dispatcher
from hybridjobs.kube.client import HYBRIDJOB_TYPES, Kubernetes
from hybridjobs.store.database import Database
from hybridjobs.store.embedded import EmbeddedPostgres
from hybridjobs.store.migrate import migrate
from tests.cluster import Cluster
from tests.conftest import free_port
from tests.integration.controller.scene import configured, namespace_of_its_own

_TYPE = {
    "apiVersion": "hybridjobs.dev/v1alpha1",
    "kind": "HybridJobType",
    "metadata": {"name": "bench-running"},
    "spec": {
        "type": "bench/running",
        "deadlineSeconds": 86_400,
        "startDeadlineSeconds": 3600,
        "podTemplate": POD_TEMPLATE,
        "retry": {"limit": 0},
    },
}
_ROWS = """
INSERT INTO hybridjobs.background_jobs (id, type, payload, max_retries)
SELECT hybridjobs.uuidv7_at(now()), 'bench/running', '{"repository": "rust-lang/rust"}', 0
FROM generate_series(1, %s)
"""
_STATES = "SELECT status, count(*) FROM hybridjobs.background_jobs GROUP BY status"
# Beside those that are there: open, and their HybridJobs and Jobs nowhere to be found.
_OPEN_ROWS = """
WITH job AS (
    INSERT INTO hybridjobs.background_jobs
        (id, type, max_retries, status, stage, attempt, started_at, resource_name, resource_uid)
    SELECT hybridjobs.uuidv7_at(now()), 'bench/running', 0, 'processing', NULL, 1, now(),
           'bench-running-' || n, gen_random_uuid()::text
    FROM generate_series(1, %s::int) AS n
    RETURNING id, resource_uid
)
INSERT INTO hybridjobs.job_attempts
    (job_id, attempt, runner, deadline_seconds, claimed_at, started_at, dispatched_at,
     hybridjob_uid, job_uid)
SELECT id, 1, 'pod', 86400, now() - interval '1 hour', now() - interval '1 hour',
       now() - interval '1 hour', resource_uid, gen_random_uuid()::text
FROM job
"""
_WATCHED_SECONDS = 90
_RECONCILES = re.compile(r"^hybridjobs_reconcile_seconds_count\S* (\S+)$", re.MULTILINE)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


class Operator:
    """`hybridjobs operator` in a process of its own on this machine."""

    def __init__(self, cluster: Cluster, namespace: str, database_url: str, log: Path) -> None:
        self._port = free_port()
        self._log = log
        self._environment = {
            **cluster.environment,
            "HYBRIDJOBS_DATABASE_URL": database_url,
            "HYBRIDJOBS_NAMESPACE": namespace,
            "HYBRIDJOBS_BIND": "127.0.0.1",
            "HYBRIDJOBS_HEALTH_PORT": str(self._port),
            "HYBRIDJOBS_WORKER_IMAGE": "hybridjobs:none",
            "HYBRIDJOBS_WORKER_API_URL": "http://none:8082",
            "HYBRIDJOBS_WORKER_SERVICE_ACCOUNT": "default",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.peak_mb = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [Path(sys.executable).with_name("hybridjobs"), "operator"],
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        try:
            yield
        finally:
            self._process.terminate()
            self._process.wait(timeout=60)

    async def until_ready(self) -> float:
        """Seconds until /readyz says so."""
        began = time.monotonic()
        while not await self._get("/readyz"):
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text()[-2000:]
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def looks(self) -> float:
        """How many times it has looked at a HybridJob."""
        found = await self._get("/metrics")
        return sum(float(count) for count in _RECONCILES.findall(found))

    def rss_mb(self) -> float:
        """Its resident memory now; `peak_mb` is its largest ever."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        kib = {
            name: int(value)
            for name, value in re.findall(r"^(Vm\w+):\s+(\d+) kB", status, re.MULTILINE)
        }
        self.peak_mb = kib["VmHWM"] / 1024
        return kib["VmRSS"] / 1024

    def cpu_s(self) -> float:
        """The processor's time that it has had."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def _get(self, path: str) -> str:
        with suppress(httpx.HTTPError):
            async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
                response = await client.get(f"http://127.0.0.1:{self._port}{path}")
                if response.status_code == 200:
                    return response.text
        return ""


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[tuple[Cluster, Kubernetes, str, str]]:
    """A namespace and a database of their own: cluster, client, namespace, database's URL."""
    namespace = f"hybridjobs-bench-{secrets.token_hex(3)}"
    server = EmbeddedPostgres(
        folder / "postgres",
        password=secrets.token_hex(8),
        port=free_port(),
        options={"shared_buffers": "512MB"},
    )
    server.start()
    try:
        await migrate(server.url, logins={})
        with namespace_of_its_own(namespace) as cluster:
            async with Kubernetes(
                await configured(cluster), field_manager="hybridjobs-bench"
            ) as kubernetes:
                await kubernetes.apply(HYBRIDJOB_TYPES, namespace, _TYPE)
                yield cluster, kubernetes, namespace, server.url
    finally:
        server.stop()


async def measure(folder: Path, *, jobs: int, rows: int) -> tuple[dict[str, float], dict[str, Any]]:
    """The figures, and what was there when they were taken."""
    async with (
        scene(folder) as (cluster, kubernetes, namespace, url),
        fake_nodes(cluster, kubernetes, folder, pods=jobs),
    ):
        operator = Operator(cluster, namespace, url, folder / "operator.log")
        with operator.running():
            await operator.until_ready()
            filled = await _fill(kubernetes, namespace, url, jobs)
            building_mb = operator.rss_mb()
        figures, details = await _anew(operator, jobs)
        details |= {"jobs": jobs, "seconds_to_create": filled, "mb_after_creating": building_mb}
        swept, what = await _sweep(cluster, namespace, url, more=rows - jobs)
        return figures | swept, details | {"sweep": what}


async def _fill(kubernetes: Kubernetes, namespace: str, url: str, jobs: int) -> float:
    """So many jobs by way of dispatcher, operator, Job controller, scheduler and kwok."""
    began = time.monotonic()
    async with (
        Database(url, size=20) as database,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
    ):
        await connection.execute(_ROWS, [jobs])
        runtime = ClusterRuntime(database, kubernetes, namespace=namespace)
        # One type gets half the window at most.
        dispatching = asyncio.create_task(Dispatcher(database, runtime, window=2 * jobs).run())
        while True:
            states: dict[str, int] = dict(await (await connection.execute(_STATES)).fetchall())
            say(f"{states} after {time.monotonic() - began:.0f} s")
            assert states.keys() <= {"queued", "processing"}, states
            if states.get("processing") == jobs:
                break
            await asyncio.sleep(15)
        dispatching.cancel()
    return time.monotonic() - began


async def _anew(operator: Operator, jobs: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Start it with all of them present; watch it until it has looked at each, and sweep."""
    with operator.running():
        ready, cpu = await operator.until_ready(), operator.cpu_s()
        began, caught_up, memory = time.monotonic(), 0.0, [operator.rss_mb()]
        while not caught_up or time.monotonic() - began < _WATCHED_SECONDS:
            await asyncio.sleep(0.5)
            memory.append(operator.rss_mb())
            if not caught_up and await operator.looks() >= jobs:
                caught_up = ready + time.monotonic() - began
                say(f"ready after {ready:.1f} s, all looked at after {caught_up:.1f} s")
        return (
            {"operator_mb_at_10k": max(memory), "operator_ready_s_at_10k": ready},
            {
                "cpu_s_until_ready": cpu,
                "all_looked_at_s": caught_up,
                "mb_at_the_end": memory[-1],
                "peak_mb": operator.peak_mb,
                "watched_s": time.monotonic() - began,
            },
        )


async def _sweep(
    cluster: Cluster, namespace: str, url: str, *, more: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """The sweep in a process of its own; then again with so many more open rows."""
    usual = await _swept(cluster, namespace, url)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(_OPEN_ROWS, [more])
        await connection.execute("VACUUM (ANALYZE) hybridjobs.background_jobs")
        await connection.execute("VACUUM (ANALYZE) hybridjobs.job_attempts")
    many = await _swept(cluster, namespace, url)
    return (
        {"sweep_s_at_100k": statistics.median(many["seconds"]), "sweep_mb_at_100k": many["mb"]},
        {"as_they_are": usual, "with_as_many_open_rows_without_hybridjobs": many | {"rows": more}},
    )


async def _swept(cluster: Cluster, namespace: str, url: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.controller_sweep", namespace, url),
        env=cluster.environment,
        stdout=subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    say(f"sweep: {found}")
    return found
