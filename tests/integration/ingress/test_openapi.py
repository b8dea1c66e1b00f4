"""The OpenAPI document: it is what the routes are made of, and what the running API does."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

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

[phases.stateful]
max-steps = 25
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
    assert len(set(names)) == len(names) == 28
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
    """All checks of schemathesis; what never ends is left out."""
    async with _filled(database_urls) as api:
        served = f"http://127.0.0.1:{api.ports.api}/openapi.json"
        await _schemathesis(tmp_path, served, phases="examples,coverage,fuzzing", examples=8)
        assert (await api.api.get("/api/statistics")).status_code == httpx.codes.OK


@pytest.mark.timeout(180)
async def test_what_an_answer_names_is_there(
    database_urls: DatabaseUrls, installed_handlers: None, tmp_path: Path
) -> None:
    """All checks along the document's links, from answer to request. Only of types that there are
    does a submission make anything to follow.
    """
    async with _filled(database_urls) as api:
        served = await api.api.get("/openapi.json")
        document = tmp_path / "openapi.json"
        document.write_text(json.dumps(_with_known_types(served.json())))
        url = f"http://127.0.0.1:{api.ports.api}"
        output = await _schemathesis(
            tmp_path, str(document), "--url", url, phases="stateful", examples=250
        )
        covered = re.search(r"API Links: +([0-9]+) covered", output)
        assert covered is not None, output
        assert int(covered[1]) >= 12, output
        assert (await api.api.get("/api/statistics")).status_code == httpx.codes.OK


@asynccontextmanager
async def _filled(database_urls: DatabaseUrls) -> AsyncIterator[Running]:
    async with running(
        database_urls.service, max_wait_seconds=0.1, api_requests_per_second=0
    ) as api:
        await api.register(job_type(), job_type("alone"), quick_type("quick/echo"))
        await failed_job(api)
        yield api


def _with_known_types(document: dict[str, Any]) -> dict[str, Any]:
    """The document, whose jobs are of the types that `_filled` has made."""
    paths = document["paths"]
    job = _body(paths["/api/jobs"])
    batch = _body(paths["/api/jobs:batch"])["properties"]["jobs"]["items"]
    for shape in (job, batch):
        shape["properties"]["type"] = {"enum": ["test/long", "alone", "quick/echo"]}
    for path, methods in paths.items():
        for operation in methods.values():
            for parameter in operation["parameters"]:
                if "{type}" in path and parameter["name"] == "type":
                    parameter["schema"] = {"enum": ["alone"]}
    return document


def _body(methods: dict[str, Any]) -> Any:
    return methods["post"]["requestBody"]["content"]["application/json"]["schema"]


async def _schemathesis(folder: Path, *document: str, phases: str, examples: int) -> str:
    """Run it; its output."""
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        *("--config-file", str(folder / "schemathesis.toml")),
        *("run", *document),
        *("--header", f"Authorization: Bearer {TOKEN}"),
        *("--exclude-path-regex", "events$"),
        *("--checks", "all", "--phases", phases),
        *("--max-examples", str(examples), "--seed", "1", "--request-timeout", "20"),
        # Paths with a slash in a type are not made by it.
        *("--suppress-health-check", "filter_too_much"),
        *("--max-response-time", "15", "--no-color", "--generation-database", "none"),
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-20_000:]
    return output.decode()
