"""Requests a second that each source has durably accepted, beside an endpoint that does nothing.

    python -m bench.ingest [--rounds 5] [--seconds 5] [--connections 128] [--source github ...]

One process of ours takes GitHub's recorded deliveries from wrk as each source sends them (verified,
one row each, committed with fsync and synchronous_commit on, 202 after the commit). Rounds of it
alternate with rounds of bench.baseline, on the same server settings and with the same client and
requests; the ratio is the median over the pairs, so that a machine whose speed changes weighs on
both alike. After each of our rounds, the rows in Postgres must be as many as the 202 answers that
were sent. Then, with GitHub's deliveries: the 99th percentile at half the accepted rate, and the
memory of our process under ten times the connections, over that under the usual ones.
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
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from psycopg.rows import dict_row

from bench.ingest_sources import TYPE, Source, environment, sources
from bench.report import Report
from hybridjobs.store.embedded import EmbeddedPostgres
from hybridjobs.store.migrate import migrate
from tests.builders import job_type, register
from tests.conftest import free_port
from tests.recorded import Delivery, deliveries

SCRIPT = Path(__file__).with_name("ingest.lua")
# Room for a run without a checkpoint in its middle, and WAL files that are there already, as on a
# server that has been up for a while; durability is left as it comes.
POSTGRES = {
    "shared_buffers": "1GB",
    "min_wal_size": "2GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
}
OVERLOAD = 10


@dataclass
class Bench:
    """The two processes, and wrk against either."""

    folder: Path
    url: str
    pid: int
    ports: dict[str, int]  # by listener
    health_port: int
    baseline_port: int
    seconds: int
    connections: int

    def measure(self, source: Source, rounds: int) -> list[dict[str, Any]]:
        """Rounds of the baseline and of ours, in turn."""
        requests = self.folder / source.name
        source.write(requests)
        port = self.ports[source.listener]
        for each in (self.baseline_port, port):
            wrk(requests, each, self.seconds, self.connections)
        done: list[dict[str, Any]] = []
        for number in range(rounds):
            source.write(requests)
            baseline = accepting(wrk(requests, self.baseline_port, self.seconds, self.connections))
            before = accepted(self.health_port, source)
            truncate(self.url)
            mine = accepting(wrk(requests, port, self.seconds, self.connections))
            rows = check(self.url, self.health_port, source, before, mine["requests"])
            done.append({"baseline": baseline, "ours": mine, "rows": rows})
            print(
                f"{source.name} {number}: baseline {baseline['rate']:.0f}/s,"
                f" ours {mine['rate']:.0f}/s, ratio {mine['rate'] / baseline['rate']:.2f},"
                f" {rows} rows",
                flush=True,
            )
        return done

    def at_half(self, source: Source, rate: float) -> dict[str, Any]:
        """Half of the rate, by pauses of the clients."""
        truncate(self.url)
        pause_ms = self.connections / (rate / 2) * 1000
        requests, port = self.folder / source.name, self.ports[source.listener]
        return accepting(wrk(requests, port, self.seconds, self.connections, pause_ms=pause_ms))

    def overload(self, source: Source) -> dict[str, Any]:
        """The process' largest memory under the usual connections, then under many more."""
        requests, port = self.folder / source.name, self.ports[source.listener]
        found: dict[str, Any] = {}
        for name, connections in (
            ("usual", self.connections),
            ("overload", self.connections * OVERLOAD),
        ):
            truncate(self.url)
            with largest_memory(self.pid) as memory:
                answers = wrk(requests, port, self.seconds, connections)
            found[name] = {**answers, "memory_mb": round(max(memory), 1)}
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=128)
    parser.add_argument("--source", action="append", help="only this one; may be repeated")
    parser.add_argument("--postgres", type=Path, help="another server's folder of programs")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("bench.ingest needs wrk: apt-get install wrk")
    recorded = [each for each in deliveries() if each.event != "ping"]
    chosen = {each.name: each for each in sources(recorded)}
    if unknown := set(options.source or ()) - chosen.keys():
        sys.exit(f"no such source: {', '.join(unknown)}; there are {', '.join(chosen)}")
    names = options.source or list(chosen)
    sizes = [len(each.payload) for each in recorded]
    result = Report("ingest", shlex.join(["python", "-m", "bench.ingest", *sys.argv[1:]]))
    result.detail("connections", options.connections)
    result.detail("deliveries", len(recorded))
    result.detail("mean_body_bytes", round(sum(sizes) / len(sizes)))
    result.detail(
        "postgres", {"version": 18, "fsync": "on", "synchronous_commit": "on", **POSTGRES}
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hybridjobs-bench-")))
        folder.chmod(0o755)
        postgres = stack.enter_context(database(folder / "postgres", options.postgres))
        asyncio.run(prepare(postgres.url, recorded, chosen.values()))
        ports = {"webhooks": free_port(), "api": free_port()}
        health_port, baseline_port = free_port(), free_port()
        command, settings = ours(postgres.url, ports, health_port)
        mine = stack.enter_context(process(command, settings))
        stack.enter_context(process([sys.executable, "-m", "bench.baseline", str(baseline_port)]))
        wait_for(f"http://127.0.0.1:{health_port}/readyz", 200)
        wait_for(f"http://127.0.0.1:{baseline_port}/", 404)
        bench = Bench(
            folder,
            postgres.url,
            mine.pid,
            ports,
            health_port,
            baseline_port,
            options.seconds,
            options.connections,
        )
        for name in names:
            rounds = bench.measure(chosen[name], options.rounds)
            if name == names[0]:
                rounds_of_first = rounds
            result.detail(name, rounds)
            ratios = [each["ours"]["rate"] / each["baseline"]["rate"] for each in rounds]
            result.add(f"ingest_ratio_{name}", median(ratios))
            result.add(
                f"requests_per_second_{name}", median(each["ours"]["rate"] for each in rounds)
            )
            result.add(f"p99_ms_{name}", median(each["ours"]["p99_ms"] for each in rounds))
        first = chosen[names[0]]
        rate = median(each["ours"]["rate"] for each in rounds_of_first)
        half = bench.at_half(first, rate)
        overload = bench.overload(first)
    result.detail("half_load", half)
    result.add("p99_at_half_load_ms", half["p99_ms"])
    result.detail("overload", overload)
    result.add("memory_mb", overload["usual"]["memory_mb"])
    result.add(
        "memory_overload_over_usual",
        overload["overload"]["memory_mb"] / overload["usual"]["memory_mb"],
    )
    result.write()


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


async def prepare(url: str, recorded: list[Delivery], sending: Iterable[Source]) -> None:
    """The schema, and one long type that wants every event."""
    await migrate(url, logins={})
    events = {f"github/{each.event}" for each in recorded}
    events |= {each.event for each in sending if each.event}
    async with await psycopg.AsyncConnection.connect(
        url, autocommit=True, row_factory=dict_row
    ) as connection:
        await register(connection, job_type(TYPE, events=sorted(events)))


def ours(url: str, ports: dict[str, int], health_port: int) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-c", "from hybridjobs.cli import main; main()", "ingress"]
    return command, {
        **environment(),
        "HYBRIDJOBS_DATABASE_URL": url,
        "HYBRIDJOBS_BIND": "127.0.0.1",
        "HYBRIDJOBS_WEBHOOK_PORT": str(ports["webhooks"]),
        "HYBRIDJOBS_API_PORT": str(ports["api"]),
        "HYBRIDJOBS_WORKER_PORT": str(free_port()),
        "HYBRIDJOBS_HEALTH_PORT": str(health_port),
        "HYBRIDJOBS_DISPATCH": "false",
        "HYBRIDJOBS_WEBHOOK_REQUESTS_PER_SECOND": "0",
        "HYBRIDJOBS_API_REQUESTS_PER_SECOND": "0",
    }


@contextmanager
def process(
    command: list[str], environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(command, env={**os.environ, **(environment or {})})
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(timeout=30)


@contextmanager
def largest_memory(pid: int) -> Iterator[list[float]]:
    """What the process has resident while inside, in MB, five times a second."""
    found: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            found.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield found
    finally:
        over.set()
        looking.join()


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


def wrk(
    folder: Path, port: int, seconds: int, connections: int, *, pause_ms: float = 0
) -> dict[str, Any]:
    """One run; no connection may break."""
    output = subprocess.run(
        [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--timeout=30s",
            "-s",
            str(SCRIPT),
            f"http://127.0.0.1:{port}/",
        ],
        env={
            **os.environ,
            "HYBRIDJOBS_BENCH_REQUESTS": str(folder),
            "HYBRIDJOBS_BENCH_DELAY_MS": f"{pause_ms:.3f}",
        },
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    result: dict[str, Any] = json.loads(output.rpartition("RESULT ")[2])
    if result["broken"]:
        sys.exit(f"{result['broken']} requests got no answer:\n{output}")
    result["rate"] = round(result["requests"] / result["microseconds"] * 1e6, 1)
    return result


def accepting(answers: dict[str, Any]) -> dict[str, Any]:
    """The run, in which nothing may have been refused."""
    if answers["refused"]:
        sys.exit(f"{answers['refused']} requests were refused: {answers}")
    return answers


def accepted(health_port: int, source: Source) -> int:
    """The 202 answers that our process has sent so far."""
    _, text = get(f"http://127.0.0.1:{health_port}/metrics")
    found = re.search(
        rf'^hybridjobs_http_requests_total\{{code="202",listener="{source.listener}"\}} (\S+)$',
        text,
        re.MULTILINE,
    )
    return int(float(found[1])) if found else 0


def truncate(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE hybridjobs.background_jobs CASCADE")
        connection.execute("CHECKPOINT")


def check(url: str, health_port: int, source: Source, before: int, received: int) -> int:
    """Rows must be as many as the answers sent, which are no fewer than those received."""
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(50):
            row = connection.execute("SELECT count(*) FROM hybridjobs.background_jobs").fetchone()
            rows = int(row[0]) if row else 0
            answers = accepted(health_port, source) - before
            if rows == answers >= received:
                return rows
            time.sleep(0.1)  # requests that wrk no longer waited for
    sys.exit(f"{rows} rows, {answers} answers sent, {received} received")


if __name__ == "__main__":
    main()
