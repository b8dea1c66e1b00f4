"""`make bench-queue`: our queue beside procrastinate, pgqueuer and one INSERT, one commit.

    python -m bench.queue [--quick] [--no-peers] [--rounds 3] [--seconds 4]

All on one server with fsync and synchronous_commit on, each in a database of its own. Rounds of
all alternate, and a ratio is the median over the rounds, so that a machine whose speed changes
weighs on all alike; every figure is in the details of results/queue.json. A round trip is a closed
loop of enqueue, claim and complete, everything durable and everything at once.
"""

import argparse
import asyncio
import hashlib
import json
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
import uvloop

from bench.ingest import POSTGRES
from bench.queue_load import Measured, answer
from bench.queue_ours import HybridJobs, InHundreds, SingleCommits
from bench.queue_scale import CLAIMED, Lines, bloat, claims_compared
from bench.report import Report
from hybridjobs.store.embedded import EmbeddedPostgres
from tests.conftest import free_port

REQUIREMENTS = Path(__file__).with_name("requirements-peers.txt")
PEERS = ("procrastinate", "pgqueuer")
_CLAIM_ROUNDS = 25
_BLOAT_ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--quick", action="store_true", help="10,000 rows instead of a million")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument(
        "--only", choices=["load", "claims", "bloat"], help="that part, and write no results"
    )
    options = parser.parse_args()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    million = 10_000 if options.quick else 1_000_000
    report = Report("queue", shlex.join(["python", "-m", "bench.queue", *sys.argv[1:]]))
    report.detail(
        "postgres", {"version": 18, "fsync": "on", "synchronous_commit": "on", **POSTGRES}
    )
    with server() as postgres:
        if options.only in (None, "load"):
            depths = sorted({0, 10_000, million})
            load(report, postgres, depths, options)
        if options.only in (None, "claims"):
            claims(report, postgres, million)
        if options.only in (None, "bloat"):
            passed(report, postgres, million)
    if options.only or options.quick:
        report.show()
    else:
        report.write()


def load(
    report: Report, postgres: EmbeddedPostgres, depths: list[int], options: argparse.Namespace
) -> None:
    """Enqueue and round trip of everybody at each depth."""
    with ExitStack() as stack:
        url = database(postgres, "ours")
        contestants: dict[str, Contestant] = {
            "hybridjobs": Ours(HybridJobs(url)),
            "hybridjobs_in_hundreds": Ours(InHundreds(url)),
            "single_commits": Ours(SingleCommits(database(postgres, "single"))),
            "one_connection": Ours(SingleCommits(database(postgres, "one"), connections=1)),
        }
        if not options.no_peers:
            python = environment()
            for name in PEERS:
                contestants[name] = stack.enter_context(
                    peer(python, name, database(postgres, name))
                )
        measured = {
            depth: measure(contestants, depth, options.rounds, options.seconds) for depth in depths
        }
    report.detail("load", {str(depth): rounds for depth, rounds in measured.items()})
    report.detail("load_medians", {str(depth): medians(each) for depth, each in measured.items()})
    everything = [each for rounds in measured.values() for each in rounds]

    def ratio(what: str, other: str) -> float:
        """The smallest over the depths, of the median over each depth's rounds."""
        return min(
            median(
                each[what]["hybridjobs"]["per_second"] / max(each[what][other]["per_second"], 1)
                for each in rounds
            )
            for rounds in measured.values()
        )

    for what in ("enqueue", "roundtrip"):
        rates = [each[what]["hybridjobs"]["per_second"] for each in everything]
        report.add(f"{what}_per_second", median(rates))
    for name in contestants:
        if name in PEERS:
            report.add(f"enqueue_vs_{name}", ratio("enqueue", name))
            report.add(f"roundtrip_vs_{name}", ratio("roundtrip", name))
    report.add("enqueue_vs_single_commits", ratio("enqueue", "single_commits"))


def measure(
    contestants: "dict[str, Contestant]", depth: int, rounds: int, seconds: float
) -> list[dict[str, dict[str, Measured]]]:
    """Each round: everybody's enqueue, then everybody's round trip, at that many rows waiting."""
    found = []
    for number in range(rounds):
        one: dict[str, dict[str, Measured]] = {"enqueue": {}, "roundtrip": {}}
        for what, figures in one.items():
            for name, contestant in contestants.items():
                if what == "roundtrip" and name not in (*PEERS, "hybridjobs"):
                    continue
                # A million rows are made once; a round adds and takes little of them.
                if depth <= 10_000 or (number == 0 and what == "enqueue"):
                    contestant.do({"prepare": depth})
                figures[name] = contestant.do({what: seconds})
            line = ", ".join(
                f"{name} {each['per_second']:,.0f}/s p50 {each.get('p50_ms', 0)} ms"
                f" p99 {each.get('p99_ms', 0)} ms"
                for name, each in figures.items()
            )
            print(f"{depth} waiting, round {number}, {what}: {line}", flush=True)
        found.append(one)
    return found


def medians(rounds: list[dict[str, dict[str, Measured]]]) -> dict[str, Any]:
    return {
        what: {
            name: {
                figure: median(each[what][name][figure] for each in rounds)
                for figure in rounds[0][what][name]
                if all(figure in each[what][name] for each in rounds)
            }
            for name in rounds[0][what]
        }
        for what in rounds[0]
    }


def claims(report: Report, postgres: EmbeddedPostgres, rows: int) -> None:
    """What waits may not make a claim slower."""
    lines = {
        "none_waiting": Lines(database(postgres, "claim_none"), 0, blocked=None),
        "waiting": Lines(database(postgres, "claim_all"), rows, blocked=None),
        "none_blocked": Lines(database(postgres, "claim_free"), 0, blocked=True),
        "blocked": Lines(database(postgres, "claim_blocked"), rows, blocked=True),
    }
    milliseconds = asyncio.run(claims_compared(lines, _CLAIM_ROUNDS))
    report.detail(
        "claims",
        {
            "rows": rows,
            "claimed": CLAIMED,
            "rounds": _CLAIM_ROUNDS,
            "median_ms": milliseconds,
            "all_ms": {
                name: [round(each * 1000, 2) for each in line.seconds]
                for name, line in lines.items()
            },
            "until_parked": lines["blocked"].until_parked,
        },
    )
    print(f"claims of {CLAIMED}: {milliseconds}, {lines['blocked'].until_parked}", flush=True)
    report.add("claim_at_1m_over_0", milliseconds["waiting"] / milliseconds["none_waiting"])
    report.add("claim_blocked_1m_over_0", milliseconds["blocked"] / milliseconds["none_blocked"])


def passed(report: Report, postgres: EmbeddedPostgres, jobs: int) -> None:
    """The size after each round of a million passed jobs, over that after the first."""
    rounds = asyncio.run(bloat(database(postgres, "bloat"), jobs, _BLOAT_ROUNDS))
    report.detail("bloat", {"jobs": jobs, "rounds": rounds})
    for each in rounds:
        print(f"{jobs} jobs passed: {each['bytes']:,} bytes, {each['per_second']}/s", flush=True)
    report.add("bloat_after_1m", rounds[-1]["bytes"] / rounds[0]["bytes"])


class Contestant:
    """Takes the commands of bench.queue_load."""

    def do(self, command: dict[str, float]) -> Measured:
        raise NotImplementedError


class Ours(Contestant):
    """In this process, which does nothing else meanwhile."""

    def __init__(self, queue: HybridJobs | SingleCommits) -> None:
        self._queue = queue

    def do(self, command: dict[str, float]) -> Measured:
        measured: Measured = json.loads(answer(self._queue, json.dumps(command)))
        return measured


class Peer(Contestant):
    """In a process with an environment of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def do(self, command: dict[str, float]) -> Measured:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{shlex.join(map(str, self._process.args[:4]))} ended")  # type: ignore[index]
        measured: Measured = json.loads(line)
        return measured


@contextmanager
def peer(python: Path, name: str, url: str) -> Iterator[Peer]:
    process = subprocess.Popen(
        [str(python), "-m", "bench.queue_peers", name, url],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Peer(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=30)


def environment() -> Path:
    """The Python of a virtual environment with the peers in it, made when it is not there."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "hybridjobs" / f"bench-venv-{digest}"
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        print(f"bench: {', '.join(PEERS)} into {folder}", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", str(REQUIREMENTS)], check=True)
        (folder / ".installed").touch()
    return python


@contextmanager
def server() -> Iterator[EmbeddedPostgres]:
    with tempfile.TemporaryDirectory(prefix="hybridjobs-bench-") as folder:
        Path(folder).chmod(0o755)
        postgres = EmbeddedPostgres(
            Path(folder, "postgres"),
            password=secrets.token_hex(8),
            port=free_port(),
            options=POSTGRES,
        )
        postgres.start()
        try:
            yield postgres
        finally:
            postgres.stop()


def database(postgres: EmbeddedPostgres, name: str) -> str:
    """The URL of a new, empty database."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"{postgres.url.rpartition('/')[0]}/{name}"


if __name__ == "__main__":
    main()
