"""examples/shell, as processes of `hybridjobs dev`, against the simulated GitHub."""

import asyncio
import json
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml

from hybridjobs.dev.process import JobProcess
from hybridjobs.model import Status
from hybridjobs.store.claim import claim
from hybridjobs.store.outcome import request_cancel
from tests.builders import job_type
from tests.conftest import DatabaseUrls
from tests.integration.dev.conftest import Dev, saved
from tests.integration.ingress.cluster import LocalKeys
from tests.integration.ingress.conftest import running
from tests.recorded.running import RecordedApi, recorded_api
from tests.recorded.server import Fault, GitHub
from tests.recorded.server.plan import Plan

EXAMPLE = Path(__file__).parents[3] / "examples" / "shell"
TYPE, SHORT = "count/issues", "count/short"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
async def api() -> AsyncIterator[RecordedApi]:
    async with recorded_api() as api:
        yield api


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A copy of the example's, with quicker retries."""
    folder = Path(tempfile.mkdtemp(prefix="hybridjobs-test-example-"))
    folder.chmod(0o755)
    shutil.copy(EXAMPLE / "handler.sh", folder)
    body = yaml.safe_load((EXAMPLE / "type.yaml").read_text())
    body["spec"]["retry"]["baseSeconds"] = 0.1
    short = {
        "metadata": {"name": "count-short"},
        "spec": body["spec"] | {"type": SHORT, "deadlineSeconds": 20},
    }
    for each in (body, body | short):
        (folder / f"{each['metadata']['name']}.yaml").write_text(yaml.safe_dump(each))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
async def example(api: RecordedApi, folder: Path) -> AsyncIterator[Dev]:
    """`hybridjobs dev` there."""
    running = Dev(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GITHUB_API_URL", api.url)
        patch.setenv("GITHUB_TOKEN", "token")
        await running.start("--types-dir", ".", module="hybridjobs.handlers.github.details")
        yield running
    await running.close()


@dataclass(frozen=True)
class Subject:
    """A simulated repository of one test: three pages of issues and pull requests."""

    github: GitHub
    name: str

    @property
    def payload(self) -> dict[str, str]:
        owner, _, repo = self.name.partition("/")
        return {"owner": owner, "repo": repo}

    @property
    def pages(self) -> list[str]:
        """Those that were asked for, in the order of their answers."""
        asked = [each for each in self.github.requests if f"/{self.name}/" in each["path"]]
        return [each["query"].rpartition("=")[2] for each in asked]

    def fault(self, **fault: Any) -> None:
        self.github.faults.append(Fault(path=f"/{self.name}/", **fault))


RESULT = {"pages": 3, "issues": 150, "pullRequests": 130, "labels": {}}


@pytest.fixture
def subject(api: RecordedApi) -> Subject:
    name = f"octo-org/simulated-{secrets.token_hex(4)}"
    api.github.simulate(Plan(full_name=name, pull_requests=130, issues=150))
    return Subject(api.github, name)


def _outcomes(job: dict[str, Any]) -> list[str]:
    return [each["outcome"] for each in job["attempts"]]


def _processes(job_id: str) -> list[int]:
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"HYBRIDJOB_ID={job_id}".encode() in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
        except OSError:
            continue
    return found


async def _run(example: Dev, payload: object, type_: str = TYPE) -> dict[str, Any]:
    """A job from its submission to its end."""
    accepted = await example.submit(type_, payload)
    return await example.ended(accepted["id"])


async def test_it_counts_page_by_page(example: Dev, subject: Subject) -> None:
    job = await _run(example, subject.payload)
    assert (job["status"], job["result"]) == ("completed", RESULT)
    assert subject.pages == ["1", "2", "3"]
    assert job["progress"] == {"done": 3, "total": 3, "message": "page 3 of 3"}


async def test_it_counts_labels(example: Dev) -> None:
    job = await _run(example, {"owner": "Codertocat", "repo": "Hello-World"})
    assert job["result"]["labels"] == {"bug": 1}


async def test_a_payload_too_large_for_the_environment_and_a_renamed_repository(
    example: Dev, subject: Subject
) -> None:
    subject.github.rename(subject.name, f"{subject.name}-renamed")
    job = await _run(example, subject.payload | {"note": "x" * 40_000})
    assert (job["status"], job["result"]) == ("completed", RESULT)


async def test_killed_it_goes_on_from_its_checkpoint(example: Dev, subject: Subject) -> None:
    subject.fault(after=2, delay_seconds=20)
    accepted = await example.submit(TYPE, subject.payload)
    await saved(example.owner_url, accepted["id"], lambda counts: bool(counts["page"] == 2))
    killed = _processes(accepted["id"])
    assert len(killed) >= 2  # the shell, and what beats for it
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    job = await example.ended(accepted["id"])
    assert (job["status"], job["result"]) == ("completed", RESULT)
    assert _outcomes(job) == ["failed", "succeeded"]
    assert job["attempts"][0]["exitCode"] == 128 + signal.SIGKILL
    assert subject.pages == ["1", "2", "3"]  # the killed one's third is not answered yet


@pytest.mark.parametrize("limit", ["secondary", "primary"])
async def test_a_rate_limit_spends_no_retry(example: Dev, subject: Subject, limit: str) -> None:
    reset = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(time.time()) + 9)}
    headers = {"secondary": {"retry-after": "3"}, "primary": reset}[limit]
    subject.fault(status=403, after=1, headers=headers)
    job = await _run(example, subject.payload)
    assert (job["status"], job["retryCount"], job["result"]) == ("completed", 0, RESULT)
    assert _outcomes(job) == ["retry_later", "succeeded"]
    first, second = job["attempts"]
    assert first["message"].startswith("GitHub's rate limit, at page 2")
    waited = datetime.fromisoformat(second["startedAt"]) - datetime.fromisoformat(first["endedAt"])
    assert waited.total_seconds() > 1
    assert subject.pages == ["1", "2", "2", "3"]


async def test_near_the_deadline_it_puts_itself_back(example: Dev, subject: Subject) -> None:
    subject.fault(delay_seconds=15)
    job = await _run(example, subject.payload, SHORT)
    assert (_outcomes(job), job["retryCount"]) == (["retry_later", "succeeded"], 0)
    assert subject.pages == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, ", or GITHUB_TOKEN may not see it"),
        (403, "give GITHUB_TOKEN the right"),
        (401, "wrong, expired or revoked"),
        (410, "issues are switched off"),
        (451, "taken down"),
    ],
)
async def test_what_no_retry_helps_against_is_permanent(
    example: Dev, subject: Subject, status: int, said: str
) -> None:
    subject.fault(status=status)
    job = await _run(example, subject.payload)
    assert (job["status"], _outcomes(job)) == ("failed", ["permanent"])
    assert said in job["error"]
    assert job["attempts"][0]["exitCode"] == 65


async def test_a_payload_that_names_no_repository_is_permanent(
    example: Dev, api: RecordedApi
) -> None:
    seen = len(api.github.requests)
    job = await _run(example, {"owner": "..", "repo": "x"})
    assert (job["status"], _outcomes(job)) == ("failed", ["permanent"])
    assert "the payload must be" in job["error"]
    assert len(api.github.requests) == seen


@pytest.mark.parametrize("fault", [{"status": 502}, {"status": 200, "body": {"no": "list"}}])
async def test_trouble_at_github_is_retried(
    example: Dev, subject: Subject, fault: dict[str, Any]
) -> None:
    subject.fault(**fault)
    job = await _run(example, subject.payload)
    assert (_outcomes(job), job["retryCount"]) == (["failed", "succeeded"], 1)
    assert job["attempts"][0]["message"].startswith("GitHub")


async def test_a_cancel_ends_it_at_once(example: Dev, subject: Subject) -> None:
    subject.fault(after=1, delay_seconds=25)
    accepted = await example.submit(TYPE, subject.payload)
    await saved(example.owner_url, accepted["id"])
    answer = await example.client.post(f"{example.api}/api/jobs/{accepted['id']}/cancel")
    assert answer.is_success
    job = await example.ended(accepted["id"])
    assert (job["status"], _outcomes(job)) == ("cancelled", ["cancelled"])
    assert job["attempts"][0]["exitCode"] == 75
    assert subject.pages == ["1"]  # while GitHub still thinks about the second


async def test_without_a_kubelet_heartbeats_tell_of_a_cancel(
    database_urls: DatabaseUrls, api: RecordedApi, subject: Subject, tmp_path: Path
) -> None:
    keys = LocalKeys()
    subject.fault(after=1, delay_seconds=25)
    async with running(database_urls.service, keys=keys, inline_children=0) as ingress:
        await ingress.register(job_type(TYPE))
        job_id = (await ingress.submit(TYPE, subject.payload)).json()["id"]
        async with ingress.database.transaction() as connection:
            await claim(connection, window=1)
        (tmp_path / "token").write_text(keys.token(job_id, 1))
        environment = {
            "PATH": os.environ["PATH"],
            "GITHUB_API_URL": api.url,
            "HYBRIDJOB_API": f"http://127.0.0.1:{ingress.ports.workers}",
            "HYBRIDJOB_ID": job_id,
            "HYBRIDJOB_ATTEMPT": "1",
            "HYBRIDJOB_DEADLINE_SECONDS": "900",
            "HYBRIDJOB_PAYLOAD": json.dumps(subject.payload),
            "HYBRIDJOB_TOKEN_FILE": str(tmp_path / "token"),
            "HYBRIDJOB_TERMINATION_LOG": str(tmp_path / "message"),
        }
        process = await JobProcess.start(
            [str(EXAMPLE / "handler.sh")], environment, tmp_path / "message", print
        )
        await saved(database_urls.owner, job_id)
        async with ingress.database.connection() as connection:
            await request_cancel(connection, UUID(job_id))
        assert await asyncio.wait_for(process.exit_code(), 18) == 75
        assert (
            await ingress.job(job_id)
        ).status is Status.PROCESSING  # its end is the kubelet's to tell
