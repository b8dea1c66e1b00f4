"""How many webhooks a second are durably accepted, beside an endpoint that does nothing.

    python -m bench.ingest [--rounds 5] [--seconds 5] [--connections 128]

One process of ours takes GitHub's recorded deliveries (signature checked, one row each, committed
with fsync and synchronous_commit on, 202 after the commit) from wrk. Rounds of it alternate with
rounds of bench.baseline, on the same server settings and with the same client and requests; the
ratio is the median over the pairs, so that a machine whose speed changes weighs on both alike.
After each of our rounds, the rows in Postgres must be as many as the 202 answers that were sent.
"""

import argparse
import asyncio
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from psycopg.rows import dict_row

from bench.report import Report
from hybridjobs.store.embedded import EmbeddedPostgres
from hybridjobs.store.migrate import migrate
from tests.builders import job_type, register
from tests.conftest import free_port
from tests.recorded import Delivery, deliveries, signed_headers

SECRET = "bench-secret"
SCRIPT = Path(__file__).with_name("ingest.lua")
# Room for a run without a checkpoint in its middle, and WAL files that are there already, as on a
# server that has been up for a while; durability is left as it comes.
POSTGRES = {
    "shared_buffers": "1GB",
    "min_wal_size": "2GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=128)
    parser.add_argument("--postgres", type=Path, help="another server's folder of programs")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("bench.ingest needs wrk: apt-get install wrk")
    recorded = [each for each in deliveries() if each.event != "ping"]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hybridjobs-bench-")))
        folder.chmod(0o755)
        write_requests(folder / "requests", recorded)
        postgres = stack.enter_context(database(folder / "postgres", options.postgres))
        asyncio.run(prepare(postgres.url, recorded))
        ours_port, health_port, baseline_port = free_port(), free_port(), free_port()
        stack.enter_context(process(*ours(postgres.url, ours_port, health_port)))
        stack.enter_context(process([sys.executable, "-m", "bench.baseline", str(baseline_port)]))
        wait_for(f"http://127.0.0.1:{health_port}/readyz", 200)
        wait_for(f"http://127.0.0.1:{baseline_port}/", 404)

        def measure(run: str, port: int, seconds: int) -> dict[str, Any]:
            return wrk(folder / "requests", run, port, seconds, options.connections)

        for port in (baseline_port, ours_port):
            measure("warm-up", port, options.seconds)
        rounds: list[dict[str, Any]] = []
        for number in range(options.rounds):
            baseline = measure(f"baseline-{number}", baseline_port, options.seconds)
            before = accepted(health_port)
            truncate(postgres.url)
            mine = measure(f"ours-{number}", ours_port, options.seconds)
            rows = check(postgres.url, health_port, before, mine["requests"])
            rounds.append({"baseline": baseline, "ours": mine, "rows": rows})
            print(
                f"round {number}: baseline {baseline['rate']:.0f}/s, ours {mine['rate']:.0f}/s, "
                f"ratio {mine['rate'] / baseline['rate']:.2f}, {rows} rows",
                flush=True,
            )
    sizes = [len(each.payload) for each in recorded]
    result = Report("ingest", shlex.join(["python", "-m", "bench.ingest", *sys.argv[1:]]))
    result.detail("rounds", rounds)
    result.detail("connections", options.connections)
    result.detail("deliveries", len(recorded))
    result.detail("mean_body_bytes", round(sum(sizes) / len(sizes)))
    result.detail(
        "postgres", {"version": 18, "fsync": "on", "synchronous_commit": "on", **POSTGRES}
    )
    result.add("ingest_requests_per_second", median(each["ours"]["rate"] for each in rounds))
    result.add("baseline_requests_per_second", median(each["baseline"]["rate"] for each in rounds))
    result.add("ingest_p99_ms", median(each["ours"]["p99_ms"] for each in rounds))
    result.add(
        "ingest_ratio", median(each["ours"]["rate"] / each["baseline"]["rate"] for each in rounds)
    )
    result.write()


def write_requests(folder: Path, recorded: list[Delivery]) -> None:
    """The head of each request up to its delivery id, and its body, for the Lua script."""
    folder.mkdir()
    for number, delivery in enumerate(recorded):
        headers = {"host": "127.0.0.1", **signed_headers(SECRET, delivery)}
        del headers["x-github-delivery"]
        lines = [
            "POST /webhooks/github HTTP/1.1",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        (folder / f"{number}.head").write_bytes("".join(f"{line}\r\n" for line in lines).encode())
        (folder / f"{number}.body").write_bytes(delivery.payload)


@contextmanager
def database(folder: Path, binaries: Path | None) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(
        folder,
        password=secrets.token_hex(8),
        port=free_port(),
        binaries=binaries,
        options=POSTGRES,
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def prepare(url: str, recorded: list[Delivery]) -> None:
    """The schema, and one long type that wants every event."""
    await migrate(url, logins={})
    events = sorted({f"github/{each.event}" for each in recorded})
    async with await psycopg.AsyncConnection.connect(
        url, autocommit=True, row_factory=dict_row
    ) as connection:
        await register(connection, job_type("bench/long", events=events))


def ours(url: str, port: int, health_port: int) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-c", "from hybridjobs.cli import main; main()", "ingress"]
    return command, {
        "HYBRIDJOBS_DATABASE_URL": url,
        "HYBRIDJOBS_BIND": "127.0.0.1",
        "HYBRIDJOBS_WEBHOOK_PORT": str(port),
        "HYBRIDJOBS_API_PORT": str(free_port()),
        "HYBRIDJOBS_WORKER_PORT": str(free_port()),
        "HYBRIDJOBS_HEALTH_PORT": str(health_port),
        "HYBRIDJOBS_DISPATCH": "false",
        "HYBRIDJOBS_GITHUB_WEBHOOK_SECRET": SECRET,
        "HYBRIDJOBS_WEBHOOK_REQUESTS_PER_SECOND": "0",
    }


@contextmanager
def process(command: list[str], environment: dict[str, str] | None = None) -> Iterator[None]:
    started = subprocess.Popen(command, env={**os.environ, **(environment or {})})
    try:
        yield
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(timeout=30)


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def wait_for(url: str, status: int) -> None:
    for _ in range(300):
        try:
            if get(url)[0] == status:
                return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"{url} does not answer {status}")


def wrk(folder: Path, run: str, port: int, seconds: int, connections: int) -> dict[str, Any]:
    """One run; every answer must be a success."""
    output = subprocess.run(
        [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "-s",
            str(SCRIPT),
            f"http://127.0.0.1:{port}/",
        ],
        env={
            **os.environ,
            "HYBRIDJOBS_BENCH_REQUESTS": str(folder),
            "HYBRIDJOBS_BENCH_RUN": f"{run}-{secrets.token_hex(4)}",
        },
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    result: dict[str, Any] = json.loads(output.rpartition("RESULT ")[2])
    if result["failed"]:
        sys.exit(f"{result['failed']} requests failed:\n{output}")
    result["rate"] = round(result["requests"] / result["microseconds"] * 1e6, 1)
    return result


def accepted(health_port: int) -> int:
    """The 202 answers that our process has sent so far."""
    _, text = get(f"http://127.0.0.1:{health_port}/metrics")
    found = re.search(
        r'^hybridjobs_http_requests_total\{code="202",listener="webhooks"\} (\S+)$',
        text,
        re.MULTILINE,
    )
    return int(float(found[1])) if found else 0


def truncate(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE hybridjobs.background_jobs CASCADE")
        connection.execute("CHECKPOINT")


def check(url: str, health_port: int, before: int, received: int) -> int:
    """Rows must be as many as the answers sent, which are no fewer than those received."""
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(50):
            row = connection.execute("SELECT count(*) FROM hybridjobs.background_jobs").fetchone()
            rows = int(row[0]) if row else 0
            answers = accepted(health_port) - before
            if rows == answers >= received:
                return rows
            time.sleep(0.1)  # requests that wrk no longer waited for
    sys.exit(f"{rows} rows, {answers} answers sent, {received} received")


if __name__ == "__main__":
    main()
