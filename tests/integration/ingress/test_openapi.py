"""The OpenAPI document: it is what the routes are made of, and what the running API does."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from hybridjobs import codec
from hybridjobs.ingress.api import openapi, routes
from hybridjobs.ingress.api.access import ApiRoute
from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.ingress.conftest import TOKEN, Running, quick_type, running
from tests.integration.ingress.outcomes import failed_job

ROOT = Path(__file__).parents[3]
CONFIGURATION = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 409, 422]
"""


async def test_it_is_served(ingress: Running) -> None:
    served = await ingress.api.get("/openapi.json")
    assert (served.status_code, served.headers["content-type"]) == (200, "application/json")
    assert served.json() == openapi()


def test_it_is_printed() -> None:
    command = [sys.executable, "-m", "hybridjobs.ingress.api"]
    printed = subprocess.run(command, capture_output=True, check=True)
    assert codec.loads(printed.stdout) == openapi()


def test_every_operation_says_what_it_does() -> None:
    document = openapi()
    operations = [each for path in document["paths"].values() for each in path.values()]
    names = [each["operationId"] for each in operations]
    assert len(set(names)) == len(names) == 27
    assert all(each["summary"].endswith(".") for each in operations)


def test_every_operation_names_the_scope_that_is_enforced() -> None:
    async def made() -> list[ApiRoute]:
        return routes(None)  # type: ignore[arg-type]  # none is served

    enforced = {
        (route.path.replace(":path}", "}"), method.lower()): [{"bearer": [needed.value]}]
        for route in asyncio.run(made())
        for method, needed in route.needs.items()
        if route.path != "/openapi.json"
    }
    assert {
        (path, method): described["security"]
        for path, methods in openapi()["paths"].items()
        for method, described in methods.items()
    } == enforced


@pytest.mark.timeout(180)
async def test_the_running_api_does_what_it_says(
    database_urls: DatabaseUrls, installed_handlers: None, tmp_path: Path
) -> None:
    """All checks of schemathesis, stateful links among them; what never ends is left out."""
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    async with running(
        database_urls.service, max_wait_seconds=0.1, api_requests_per_second=0
    ) as api:
        await api.register(job_type(), job_type("alone"), quick_type("quick/echo"))
        await failed_job(api)
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")),
            *("--config-file", str(tmp_path / "schemathesis.toml")),
            *("run", f"http://127.0.0.1:{api.ports.api}/openapi.json"),
            *("--header", f"Authorization: Bearer {TOKEN}"),
            *("--exclude-path-regex", "events$"),
            *("--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"),
            *("--max-examples", "8", "--seed", "1", "--request-timeout", "20"),
            # Paths with a slash in a type are not made by it.
            *("--suppress-health-check", "filter_too_much"),
            *("--max-response-time", "15", "--no-color", "--generation-database", "none"),
            cwd=tmp_path,
            env={**os.environ, "PYTHONWARNINGS": "default"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()[-20_000:]
        assert (await api.api.get("/api/statistics")).status_code == httpx.codes.OK
