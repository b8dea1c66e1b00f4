"""What a release keeps to itself: secrets, and each attempt's own."""

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest

from tests.e2e.gate import Gate
from tests.e2e.release import Access, Release, delivery_of, eventually

pytestmark = pytest.mark.timeout(300)

WORKER = "hybridjobs-worker"
AUDIENCE = "hybridjobs"
SHORTEST_SECRET = 8  # characters; what is shorter, such as an App's id, may stand anywhere
LOGS = ("--all-containers", "--prefix=false", "--ignore-errors")


async def _pod_of(release: Release, job_id: str) -> str:
    """The running pod of a job."""

    async def look() -> str | None:
        pods = await asyncio.to_thread(release.objects, "pods", f"hybridjobs.dev/job-id={job_id}")
        running = [pod for pod in pods if pod["status"].get("phase") == "Running"]
        return running[0]["metadata"]["name"] if running else None

    return await eventually(look, seconds=90, what=f"a pod of {job_id}")


def _token(
    release: Release, *, pod: str | None = None, audience: str = AUDIENCE, account: str = WORKER
) -> str:
    """A token by the API server, as the kubelet asks for them."""
    bound = ["--bound-object-kind=Pod", f"--bound-object-name={pod}"] if pod else []
    return release.kubectl("create", "token", account, f"--audience={audience}", *bound).strip()


async def test_a_worker_s_token_is_good_for_its_own_attempt_alone(
    release: Release, access: Access, gate: Gate
) -> None:
    ours, theirs = [
        await access.submit("test/script", gate.payload, deadlineSeconds=300) for _ in range(2)
    ]
    pods = {job_id: await _pod_of(release, job_id) for job_id in (ours, theirs)}
    good = _token(release, pod=pods[ours])
    release.kubectl("create", "serviceaccount", "intruder")
    refused = {
        "another pod's": (403, _token(release, pod=pods[theirs])),
        "no pod's": (403, _token(release)),
        "another account's": (403, _token(release, account="intruder")),
        "for the API server": (401, _token(release, pod=pods[ours], audience="https://kubernetes")),
        "another namespace's": (403, _elsewhere(release)),
        "forged": (401, good[:-8] + "AAAAAAAA"),
    }
    async with release.worker_api() as url, httpx.AsyncClient(trust_env=False) as client:

        async def ask(token: str) -> int:
            answer = await client.put(
                f"{url}/worker/v1/attempts/{ours}/1/heartbeat",
                headers={"Authorization": f"Bearer {token}"},
            )
            return answer.status_code

        assert {name: await ask(token) for name, (_, token) in refused.items()} == {
            name: status for name, (status, _) in refused.items()
        }
        assert await ask(good) == 200
        for job_id in (ours, theirs):
            await access.request("POST", f"/api/jobs/{job_id}/cancel")
        await access.until(ours)
        # The pod has ended, and its token is good until it expires.
        assert await ask(good) == 409


def _elsewhere(release: Release) -> str:
    """A token of an account of the same name in another namespace."""
    namespace = f"{release.namespace}-elsewhere"
    release.kubectl("create", "namespace", namespace, scoped=False)
    try:
        there = ("--namespace", namespace)
        release.kubectl("create", "serviceaccount", WORKER, *there, scoped=False)
        token = release.kubectl(
            *("create", "token", WORKER, f"--audience={AUDIENCE}", *there), scoped=False
        )
    finally:
        release.kubectl("delete", "namespace", namespace, "--wait=false", scoped=False)
    return token.strip()


async def test_secrets_stand_in_no_log_no_object_and_no_row(
    release: Release, access: Access
) -> None:
    # Jobs that use them: GitHub's App, the database of the handlers, and a failing one.
    await access.deliver(delivery_of("repository", "renamed"))
    await access.deliver(delivery_of("repository", "renamed"), secret="wrong")
    await access.submit("test/script", {"exit": 1})
    await access.client.get(f"{access.api}/api/jobs", headers={"Authorization": "Bearer wrong"})
    await access.quiet()
    known = _secrets(release)
    assert access.token in known.values()
    assert access.webhook_secret in known.values()
    shown = {
        kind: release.kubectl("get", kind, "-o", "yaml", "--show-managed-fields")
        for kind in (
            *("pods", "jobs", "deployments", "statefulsets", "configmaps", "events"),
            *("hybridjobs", "hybridjobtypes", "hybridjobschedules"),
        )
    }
    for pod in release.objects("pods"):
        name = pod["metadata"]["name"]
        shown[f"log of {name}"] = release.kubectl("logs", name, *LOGS, "--tail=-1")
    assert any("capture/repository.sync" in text for text in shown.values())
    for table in ("background_jobs", "job_attempts", "job_types", "dead_letter_queue"):
        rows = await access.sql(f"SELECT row_to_json(t)::text AS row FROM hybridjobs.{table} t")
        shown[table] = "\n".join(row["row"] for row in rows)
    assert all(shown[table] for table in ("background_jobs", "job_attempts", "job_types"))
    leaks = {
        (place, name)
        for place, text in shown.items()
        for name, secret in known.items()
        if any(form in text for form in _forms(secret))
    }
    assert leaks == set()


def _secrets(release: Release) -> dict[str, str]:
    """Every value of the release's Secrets, and the parts of those that are URLs or keys."""
    found: dict[str, str] = {}
    for secret in release.objects("secrets"):
        if secret["type"].startswith("helm.sh"):
            continue
        for key, value in (secret.get("data") or {}).items():
            name, text = f"{secret['metadata']['name']}/{key}", base64.b64decode(value).decode()
            found[name] = text
            if text.startswith("{"):
                found |= {f"{name}, {part}": each for part, each in json.loads(text).items()}
            elif text.startswith("-----BEGIN"):
                found[f"{name}, its middle"] = text.splitlines()[5]
            elif text.startswith("postgresql://"):
                found[f"{name}, its password"] = httpx.URL(text).password or ""
    return {name: text for name, text in found.items() if len(text) >= SHORTEST_SECRET}


def _forms(secret: str) -> set[str]:
    """The ways in which it may be written."""
    encoded: set[Any] = {base64.b64encode(secret.encode()).decode(), json.dumps(secret)[1:-1]}
    return {secret, secret.strip(), *encoded}
