"""The command line as a process of its own, against an ingress in the test's."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.ingress.conftest import TOKEN, Running, running

PROGRAM = "from hybridjobs.cli import main; main()"


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Coroutine[Any, Any, Done]]


async def run(*arguments: str, stdin: str = "", **environment: str) -> Done:
    """Run `hybridjobs` with these arguments and variables."""
    inherited = {name: value for name, value in os.environ.items() if "HYBRIDJOBS" not in name}
    inherited.pop("KUBECONFIG", None)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        *arguments,
        env={**inherited, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


@pytest.fixture
async def api(database_urls: DatabaseUrls) -> AsyncIterator[Running]:
    """An ingress that knows two types; every job waits for a dispatcher."""
    async with running(database_urls.service, inline_children=0) as ingress:
        await ingress.register(job_type(), job_type("test/other"))
        yield ingress


@pytest.fixture
def command(api: Running) -> Command:
    """Runs `hybridjobs` with the ingress' address and token."""

    async def call(*arguments: str, **options: str) -> Done:
        variables = {
            "HYBRIDJOBS_API_URL": f"http://127.0.0.1:{api.ports.api}",
            "HYBRIDJOBS_API_TOKEN": TOKEN,
            "HYBRIDJOBS_USER": "ana",
        }
        return await run(*arguments, **{**variables, **options})

    return call
