"""examples/shell as an image, in pods of the cluster, against the recorded GitHub there."""

import asyncio
from typing import Any

import pytest
import yaml

from tests.cluster import images
from tests.e2e.release import Access, Release, eventually, unique_key

pytestmark = pytest.mark.timeout(300)

TYPE = "count/issues"


@pytest.fixture(scope="module")
def example(release: Release) -> str:
    """The job type of examples/shell, with the image that is built of it."""
    if release.cluster.kind == "named":
        pytest.skip("images are built for clusters that this project makes")
    images.make(images.SHELL_EXAMPLE)
    body = yaml.safe_load((images.SHELL_EXAMPLE.folder / "type.yaml").read_text())
    body["spec"]["image"] = images.SHELL_EXAMPLE.name
    body["spec"]["retry"]["baseSeconds"] = 1
    github = {"name": "GITHUB_API_URL", "value": f"http://recorded-github.{release.namespace}.svc"}
    body["spec"]["env"].append(github)
    release.apply(body)
    return TYPE


async def _simulated(access: Access) -> dict[str, str]:
    """A repository of three pages of its own; the payload that names it."""
    repo = unique_key()
    plan = {"fullName": f"octo-org/{repo}", "pullRequests": 130, "issues": 150}
    (await access.client.post(f"{access.github}/_test/simulate", json=plan)).raise_for_status()
    return {"owner": "octo-org", "repo": repo}


async def _fault(access: Access, payload: dict[str, str], **fault: Any) -> None:
    plan = {"path": f"/{payload['repo']}/", **fault}
    (await access.client.post(f"{access.github}/_test/faults", json=plan)).raise_for_status()


async def _submitted(access: Access, payload: dict[str, str]) -> str:
    """The job's id, once the ingress knows the type."""

    async def submit() -> str | None:
        body = {"type": TYPE, "payload": payload}
        response = await access.request("POST", "/api/jobs", json=body)
        return str(response.json()["id"]) if response.is_success else None

    return await eventually(submit, seconds=30, what="the type to be known")


RESULT = {"pages": 3, "issues": 150, "pullRequests": 130, "labels": {}}


async def test_it_counts_in_a_pod(example: str, release: Release, access: Access) -> None:
    job = await access.until(await _submitted(access, await _simulated(access)))
    assert (job["status"], job["result"]) == ("completed", RESULT), job

    async def log() -> str | None:
        # The worker reports its result itself, before the operator has seen its pod end.
        [attempt] = (await access.job(job["id"]))["attempts"]
        return attempt["logTail"] or None

    assert "page 3 of octo-org/" in await eventually(log, seconds=30, what="its log")


async def test_its_pod_killed_it_goes_on(example: str, release: Release, access: Access) -> None:
    payload = await _simulated(access)
    await _fault(access, payload, after=2, delaySeconds=60)
    job_id = await _submitted(access, payload)

    async def second() -> bool | None:
        progress = (await access.job(job_id))["progress"] or {}
        return progress.get("done") == 2 or None

    await eventually(second, seconds=90, what="two pages")
    await asyncio.to_thread(
        release.kubectl,
        *("delete", "pod", "-l", f"hybridjobs.dev/job-id={job_id}"),
        *("--grace-period=0", "--force"),
    )
    job = await access.until(job_id)
    assert (job["status"], job["result"]) == ("completed", RESULT), job
    assert len(job["attempts"]) == 2
    requests = (await access.client.get(f"{access.github}/_test/requests")).json()
    pages = [each["query"][-1] for each in requests if payload["repo"] in each["path"]]
    assert pages == ["1", "2", "3"]  # the killed one's third is not answered yet


async def test_a_limit_and_what_is_not_there(
    example: str, release: Release, access: Access
) -> None:
    payload = await _simulated(access)
    await _fault(access, payload, status=403, after=1, headers={"retry-after": "2"})
    limited = await access.until(await _submitted(access, payload))
    outcomes = [each["outcome"] for each in limited["attempts"]]
    assert (outcomes, limited["retryCount"]) == (["retry_later", "succeeded"], 0), limited
    gone = await access.until(await _submitted(access, payload | {"repo": unique_key()}))
    assert (gone["status"], len(gone["attempts"])) == ("failed", 1), gone
    assert "GITHUB_TOKEN may not see it" in gone["error"]


async def test_cancelled_its_pod_ends_within_the_grace_period(
    example: str, release: Release, access: Access
) -> None:
    payload = await _simulated(access)
    await _fault(access, payload, delaySeconds=60)
    job_id = await _submitted(access, payload)
    await access.until(job_id, "processing")
    (await access.request("POST", f"/api/jobs/{job_id}/cancel")).raise_for_status()
    job = await access.until(job_id, seconds=40)
    assert (job["status"], job["attempts"][0]["outcome"]) == ("cancelled", "cancelled"), job
