"""The API of an installed release: who may call it, a job's log, and a job that is followed."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.e2e.gate import Gate
from tests.e2e.release import IMAGE, Access, Release, eventually, unique_key
from tests.integration.access.conftest import Accounts
from tests.integration.cli.conftest import Done, run
from tests.unit.chart.test_rights import INGRESS

pytestmark = pytest.mark.timeout(180)

NEXT_YEAR = (datetime.now(UTC) + timedelta(days=365)).isoformat()
READER, SUBMITTER, OPERATOR = ("get", "list"), ("create", "get", "list"), ("update", "delete")


async def _command(access: Access, *arguments: str, token: str | None = None) -> Done:
    """`hybridjobs` on this machine."""
    return await run(
        *arguments, HYBRIDJOBS_API_URL=access.api, HYBRIDJOBS_API_TOKEN=token or access.token
    )


async def _log(access: Access, job_id: str) -> httpx.Response:
    return await access.request("GET", f"/api/jobs/{job_id}/logs")


async def test_a_log_is_the_pod_s_while_there_is_one_and_then_what_was_kept(
    release: Release, access: Access, gate: Gate
) -> None:
    job_id = await access.submit("test/script", {"lines": 10, **gate.payload})
    following = asyncio.create_task(_command(access, "logs", job_id, "--follow"))

    async def begun() -> str | None:
        text = (await _log(access, job_id)).text
        return text if "line 9" in text else None

    first = await eventually(begun, seconds=60, what="the first lines")
    assert first == "".join(["begun attempt 1\n", *(f"line {number}\n" for number in range(10))])
    job = await access.until(job_id, "processing")
    assert job["attempts"][0]["logTail"] is None
    printed = await _command(access, "logs", job_id)
    assert (printed.code, printed.out) == (0, first), printed

    gate.open()
    whole = f"{first}let through\n"
    job = await access.until(job_id)
    followed = await following
    assert (followed.code, followed.out) == (0, whole), followed.err
    release.kubectl("delete", "hybridjob", job["resourceName"], "--cascade=foreground")
    assert release.objects("pods", f"hybridjobs.dev/job-id={job_id}") == []
    kept = await _log(access, job_id)
    assert (kept.text, kept.headers["hybridjobs-attempt"]) == (whole, "1")
    assert (await _command(access, "logs", job_id)).out == whole


async def test_a_job_is_followed_from_the_queue_to_its_end(access: Access, gate: Gate) -> None:
    """One that waits for another until it is seen to wait, and runs until it is seen to run."""
    other, seen = await access.submit("test/script", gate.payload), []
    with Gate() as end:
        job_id = await access.submit("test/script", end.payload, dependsOn=[other])
        async for each in _followed(access, job_id):
            seen.append(each)
            if each["status"] == "queued":
                gate.open()
            elif each["status"] == "processing":
                end.open()
    assert {each["id"] for each in seen} == {job_id}
    assert list(dict.fromkeys(each["status"] for each in seen)) == [
        "queued",
        "processing",
        "completed",
    ]


async def _followed(access: Access, job_id: str) -> AsyncIterator[dict[str, Any]]:
    """What its stream of events tells."""
    async with access.client.stream(
        "GET",
        f"{access.api}/api/jobs/{job_id}/events",
        headers={"Authorization": f"Bearer {access.token}"},
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


def _rights(release: Release, account: str, namespace: str) -> set[tuple[str, str, str]]:
    """(group, resource, verb) of all that the API server lets the account do in a namespace."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    who = (
        f"--as=system:serviceaccount:{release.namespace}:{account}",
        "--as-group=system:authenticated",
    )
    # Validation would ask for the definitions, which the account may not see.
    create = ("create", "--validate=false", "-f", "-", "-o", "json")
    answer = release.kubectl(*create, *who, stdin=json.dumps(review))
    return {
        (group, resource, verb)
        for rule in json.loads(answer)["status"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


async def test_the_ingress_may_read_logs_and_handle_hybridjobs_and_nothing_else(
    release: Release,
) -> None:
    everywhere = {
        ("authentication.k8s.io", "tokenreviews", "create"),
        ("authorization.k8s.io", "subjectaccessreviews", "create"),
    }
    here = {(*resource, verb) for resource, verbs in INGRESS.items() for verb in verbs}
    for namespace, expected in ((release.namespace, here | everywhere), ("default", everywhere)):
        anybody = _rights(release, "default", namespace)
        assert _rights(release, "hybridjobs-ingress", namespace) - anybody == expected


async def test_service_accounts_may_do_what_their_roles_say(
    release: Release, access: Access
) -> None:
    accounts = Accounts(release.cluster, release.namespace)
    roles = {"stranger": (), "reader": READER, "submitter": SUBMITTER, "operator": OPERATOR}
    tokens = {}
    for name, verbs in roles.items():
        accounts.make(name, *verbs)
        tokens[name] = accounts.token(name)
    job_id = await access.submit("test/echo", runAt=NEXT_YEAR)
    submission = {"type": "test/echo", "payload": {}, "runAt": NEXT_YEAR}

    async def answer(token: str | None, method: str, path: str, body: object = None) -> Any:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return await access.client.request(
            method, f"{access.api}{path}", headers=headers, json=body
        )

    async def codes(token: str | None) -> tuple[int, int, int]:
        read, submit = await asyncio.gather(
            answer(token, "GET", f"/api/jobs/{job_id}"),
            answer(token, "POST", "/api/jobs", submission),
        )
        operate = await answer(token, "POST", f"/api/jobs/{job_id}/cancel")
        return read.status_code, submit.status_code, operate.status_code

    assert await codes(None) == (401, 401, 401)
    assert await codes(accounts.token("operator", audience=None)) == (401, 401, 401)
    assert await codes(tokens["stranger"]) == (403, 403, 403)
    assert await codes(tokens["reader"]) == (200, 403, 403)
    assert await codes(tokens["submitter"]) == (200, 202, 403)
    assert (await access.job(job_id))["status"] == "queued"
    assert await codes(tokens["operator"]) == (403, 403, 202)
    assert (await access.job(job_id))["status"] == "cancelled"
    listed = (await answer(tokens["reader"], "GET", "/api/jobs?limit=1")).json()["jobs"]
    submitted = await access.job(listed[0]["id"])
    assert submitted["submittedBy"] == accounts.user("submitter")


async def test_a_pod_submits_by_the_token_that_the_kubelet_gives_it(
    release: Release, access: Access
) -> None:
    accounts, name = Accounts(release.cluster, release.namespace), unique_key()
    accounts.make(name, *SUBMITTER)
    release.apply(_client(name, "submit", "test/echo", "--payload", '{"from":"a pod"}'))
    phase = "--for=jsonpath={.status.phase}=Succeeded"
    release.kubectl("wait", f"pod/{name}", phase, "--timeout=60s")
    job = await access.until(release.kubectl("logs", name).strip())
    assert (job["status"], job["result"]) == ("completed", {"from": "a pod"})
    assert job["submittedBy"] == accounts.user(name)


def _client(name: str, *arguments: str) -> dict[str, Any]:
    """A pod of that name and account that runs `hybridjobs`, as docs/access.md has it."""
    source = {"path": "token", "audience": "hybridjobs", "expirationSeconds": 3600}
    projected = {"sources": [{"serviceAccountToken": source}]}
    container = {
        "name": "main",
        "image": IMAGE,
        "args": arguments,
        "env": [
            {"name": "HYBRIDJOBS_API_URL", "value": "http://hybridjobs-api:8081"},
            {"name": "HYBRIDJOBS_API_TOKEN", "value": "@/var/run/hybridjobs/token"},
        ],
        "volumeMounts": [{"name": "hybridjobs", "mountPath": "/var/run/hybridjobs"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "serviceAccountName": name,
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumes": [{"name": "hybridjobs", "projected": projected}],
            "containers": [container],
        },
    }


async def test_a_token_of_the_table_from_its_making_to_its_end(
    release: Release, access: Access
) -> None:
    def token_command(*arguments: str) -> str:
        target = ("deployment/hybridjobs-ingress", "--container=ingress", "--")
        return release.kubectl("exec", *target, "hybridjobs", "token", *arguments)

    name = unique_key()
    made = json.loads(token_command("create", name, "--scope", "submit", "--json"))
    token = made["token"]
    later = ("submit", "test/echo", "--run-at", NEXT_YEAR)
    job_id = (await _command(access, *later, token=token)).out.strip()
    assert (await access.job(job_id))["submittedBy"] == f"token:{name}"
    refused = await _command(access, "cancel", job_id, token=token)
    assert (refused.code, "this needs operate" in refused.err) == (4, True), refused
    await access.request("POST", f"/api/jobs/{job_id}/cancel")

    listed = json.loads(token_command("list", "--json"))["tokens"]
    [shown] = [each for each in listed if each["name"] == name]
    assert (shown["id"], shown["scope"], token in str(listed)) == (made["id"], "submit", False)
    token_command("revoke", made["id"])

    async def ended() -> bool | None:
        url, headers = f"{access.api}/api/jobs", {"Authorization": f"Bearer {token}"}
        return (await access.client.get(url, headers=headers)).status_code == 401 or None

    await eventually(ended, seconds=30, what="the revoked token to be refused")
