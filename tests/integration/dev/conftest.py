"""`hybridjobs dev` as the process that people start, with handlers in a folder of theirs."""

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from hybridjobs.store.embedded import EmbeddedPostgres
from tests.conftest import free_port
from tests.waiting import eventually

HANDLERS = Path(__file__).with_name("handlers.py.txt")
TYPES = {
    "quick": "{type: demo/quick, mode: quick}",
    "fails": "{type: demo/fails, retry: {limit: 3, baseSeconds: 0.1, maxSeconds: 0.2}}",
    "spins": "{type: demo/spins, deadlineSeconds: 2, gracePeriodSeconds: 1}",
    "shell": (
        "{type: demo/shell, command: [sh, -c], gracePeriodSeconds: 1, args: "
        "['echo said; echo \"$GREETING\" > $HYBRIDJOB_TERMINATION_LOG; exit ${CODE:-0}'], "
        "env: [{name: GREETING, value: hello}]}"
    ),
    "image": "{type: demo/image, image: registry.example/report}",
}


def write_types(folder: Path, **specs: str) -> None:
    write_objects(folder, "HybridJobType", **specs)


def write_objects(folder: Path, kind: str, **specs: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, spec in specs.items():
        text = f"kind: {kind}\nmetadata: {{name: demo-{name}}}\nspec: {spec}\n"
        (folder / f"{name}.yaml").write_text(text)


async def saved(url: str, job_id: str, reached: Callable[[Any], bool] = bool) -> None:
    """Wait until the job of the database has saved such a checkpoint."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:

        async def is_there() -> bool:
            cursor = await connection.execute(
                "SELECT data FROM hybridjobs.job_checkpoints WHERE job_id = %s", [job_id]
            )
            row = await cursor.fetchone()
            return row is not None and reached(row[0])

        await eventually(is_there)


class Dev:
    """A project's folder, and the `hybridjobs dev` in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.output = folder / "output"
        self.port = free_port(adjacent=5)
        self.process: asyncio.subprocess.Process | None = None
        self.client = httpx.AsyncClient(timeout=30)

    async def start(self, *arguments: str, module: str = "demo") -> None:
        """Start it, and wait until it says that it is ready."""
        await self.launch(*arguments, module=module)
        await self.says("ready; Ctrl-C ends it")
        token = re.findall(r"HYBRIDJOBS_API_TOKEN=(\w+)", self.output.read_text())[-1]
        self.client.headers["authorization"] = f"Bearer {token}"

    async def launch(self, *arguments: str, module: str = "demo") -> asyncio.subprocess.Process:
        """Start it."""
        with self.output.open("w") as output:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                "from hybridjobs.cli import main; main()",
                "dev",
                *(f"--module={each}" for each in module.split(",")),
                *("--port", str(self.port), "--data", str(self.data)),
                *arguments,
                cwd=self.folder,
                stdout=output,
                stderr=output,
                env={**os.environ, "COLUMNS": "200"},
            )
        return self.process

    async def says(self, text: str, *, times: int = 1, seconds: float = 90) -> None:
        """Wait until its output holds the text."""

        def said_or_over() -> bool:
            over = self.process is None or self.process.returncode is not None
            return over or self.output.read_text().count(text) >= times

        with suppress(TimeoutError):
            await eventually(said_or_over, seconds=seconds)
        if self.output.read_text().count(text) < times:
            pytest.fail(f"never said {text!r}:\n{self.output.read_text()}")

    async def end(self, how: signal.Signals = signal.SIGINT) -> int:
        """Signal it; its exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(how)
        return await self.process.wait()

    async def close(self) -> None:
        """End it; nothing is left of it, not even of one that was killed."""
        await self.end()
        await self.client.aclose()
        EmbeddedPostgres(self.data / "postgres", password="").end_previous()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def owner_url(self) -> str:
        """Its database, by the owner."""
        password = json.loads((self.data / "secrets.json").read_text())["password"]
        server = EmbeddedPostgres(self.data / "postgres", password=password, port=self.port + 4)
        return server.url

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port + 1}"

    async def submit(self, type_: str, payload: Any = None, **members: Any) -> dict[str, Any]:
        body = {"type": type_, "payload": payload or {}, **members}
        answer = await self.client.post(f"{self.api}/api/jobs", json=body)
        assert answer.is_success, answer.text
        accepted: dict[str, Any] = answer.json()
        return accepted

    async def job(self, job_id: str) -> dict[str, Any]:
        answer = await self.client.get(f"{self.api}/api/jobs/{job_id}?logs=true")
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def until(self, job_id: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async def found() -> dict[str, Any] | None:
            job = await self.job(job_id)
            return job if reached(job) else None

        try:
            job: dict[str, Any] = await eventually(found, seconds=90)
        except TimeoutError:
            pytest.fail(f"it stays {await self.job(job_id)}\n{self.output.read_text()}")
        return job

    async def ended(self, job_id: str) -> dict[str, Any]:
        over = ("completed", "failed", "cancelled")
        return await self.until(job_id, lambda job: job["status"] in over)


@pytest.fixture(scope="module")
def project() -> Iterator[Path]:
    """A folder that Postgres' user can enter, with a module of handlers."""
    folder = Path(tempfile.mkdtemp(prefix="hybridjobs-test-dev-"))
    folder.chmod(0o755)
    (folder / "demo.py").write_text(HANDLERS.read_text())
    (folder / "helper.py").write_text("ANSWER = 1\n")
    write_types(folder / "types", **TYPES)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
async def dev(project: Path) -> AsyncIterator[Dev]:
    """One that runs, for tests that leave it as it was."""
    running = Dev(project)
    await running.start("--types-dir", "types")
    yield running
    await running.close()
