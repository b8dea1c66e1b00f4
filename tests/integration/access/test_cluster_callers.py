"""Callers by the cluster's tokens: who they are and what they may, as the API server says."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from hybridjobs.client import Client
from hybridjobs.errors import ClusterUnavailable
from hybridjobs.kube.client import Kubernetes
from hybridjobs.kube.reviews import Reviews, User
from hybridjobs.kube.rights import may_review
from hybridjobs.model import Status
from tests.integration.access.conftest import AUDIENCE, Accounts
from tests.integration.ingress.conftest import Running

SUBMISSION = json.dumps({"type": "test/long", "payload": {}})
REQUESTS = {
    "read": ("GET", "/api/jobs", ""),
    "submit": ("POST", "/api/jobs", SUBMISSION),
    "operate": ("POST", "/api/queue/resume", ""),
}


async def answers(ingress: Running, token: str) -> dict[str, httpx.Response]:
    headers = {"Authorization": f"Bearer {token}"}
    return {
        scope: await ingress.api.request(method, path, content=body, headers=headers)
        for scope, (method, path, body) in REQUESTS.items()
    }


@pytest.mark.parametrize(
    ("name", "verbs", "allowed"),
    [
        ("nothing", (), set()),
        ("gets", ("get",), set()),
        ("reads", ("get", "list"), {"read"}),
        ("creates", ("create",), {"submit"}),
        ("deletes", ("delete",), set()),
        ("operates", ("update", "delete"), {"operate"}),
        ("everything", ("*",), {"read", "submit", "operate"}),
    ],
)
async def test_rbac_decides_each_scope(
    ingress: Running, accounts: Accounts, name: str, verbs: tuple[str, ...], allowed: set[str]
) -> None:
    accounts.make(name, *verbs)
    found = await answers(ingress, accounts.token(name))
    assert {scope for scope, answer in found.items() if answer.status_code < 300} == allowed
    for scope in set(REQUESTS) - allowed:
        answer = found[scope]
        assert answer.status_code == 403
        detail = answer.json()["detail"]
        assert f"the scope {scope}" in detail
        assert accounts.user(name) in detail
        assert accounts.namespace in detail
    if "submit" in allowed:
        job = await ingress.job(found["submit"].json()["id"])
        assert job.submitted_by == accounts.user(name)


async def test_a_token_for_others_is_refused(ingress: Running, accounts: Accounts) -> None:
    accounts.make("other", "*")
    for audience in (None, "vault"):
        token = accounts.token("other", audience=audience)
        assert (await answers(ingress, token))["read"].status_code == 401
    good = accounts.token("other")
    head, claims, signature = good.split(".")
    forged = f"{head}.{claims}.{signature[:-8]}AAAAAAAA"
    assert (await answers(ingress, forged))["read"].status_code == 401
    assert (await answers(ingress, good))["read"].status_code == 200


async def test_a_deleted_account_and_a_right_that_is_taken_away_end_within_seconds(
    ingress: Running, accounts: Accounts
) -> None:
    for name in ("leaver", "demoted"):
        accounts.make(name, "get", "list")
    tokens = {name: accounts.token(name) for name in ("leaver", "demoted")}
    for token in tokens.values():
        assert (await answers(ingress, token))["read"].status_code == 200
    accounts.kubectl("delete", "serviceaccount", "leaver")
    accounts.kubectl("delete", "rolebinding", "demoted")
    wanted = {"leaver": 401, "demoted": 403}
    found: dict[str, int] = {}
    # The API server itself remembers a token for ten seconds.
    for _ in range(60):
        found = {
            name: (await answers(ingress, token))["read"].status_code
            for name, token in tokens.items()
        }
        if found == wanted:
            break
        await asyncio.sleep(0.5)
    assert found == wanted


async def test_the_client_follows_a_file_that_is_renewed(
    ingress: Running, accounts: Accounts, tmp_path: Path
) -> None:
    accounts.make("client", "*")
    file = tmp_path / "token"
    async with Client(f"http://127.0.0.1:{ingress.ports.api}", f"@{file}") as client:
        ids = []
        for _ in range(2):
            file.write_text(accounts.token("client") + "\n")
            ids.append(await client.submit("test/long", {}))
            file.write_text("gone")
        file.write_text(accounts.token("client"))
        assert await client.cancel(ids[0]) is Status.CANCELLED
    assert (await ingress.job(ids[1])).submitted_by == accounts.user("client")


async def test_the_chart_gives_the_ingress_the_right_to_ask(
    kubernetes: Kubernetes, accounts: Accounts
) -> None:
    assert await may_review(kubernetes)
    reviews = Reviews(kubernetes, audiences=[AUDIENCE], namespace=accounts.namespace)
    accounts.make("asked", "create")
    user = await reviews.user_of(accounts.token("asked"))
    assert user is not None
    assert user.name == accounts.user("asked")
    assert "system:serviceaccounts" in user.groups
    assert await reviews.may(user, ["create"])
    assert not await reviews.may(user, ["create", "delete"])
    # Somebody that no token stands for: groups count as the name does.
    admin = User("ana", "", ("system:masters",), ())
    assert await reviews.may(admin, ["update", "delete"])


async def test_an_api_server_that_is_away_is_said_so(accounts: Accounts) -> None:
    from kubernetes.aio.client import Configuration

    configuration = Configuration()
    configuration.host = "http://127.0.0.1:9"
    async with Kubernetes(configuration, field_manager="x") as nowhere:
        reviews = Reviews(nowhere, audiences=[AUDIENCE], namespace=accounts.namespace)
        with pytest.raises(ClusterUnavailable):
            await reviews.user_of("a.b.c")
