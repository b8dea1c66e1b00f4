"""What doctor finds, in a real database and in a cluster's API as aiohttp plays it."""

import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from psycopg.conninfo import make_conninfo

from hybridjobs.store.embedded import EmbeddedPostgres
from hybridjobs.store.migrate import migrate
from tests.conftest import DatabaseUrls, free_port
from tests.integration.cli.conftest import Done, run

RESOURCES = ["hybridjobs", "hybridjobs/status", "hybridjobtypes", "hybridjobschedules"]


@pytest.fixture(scope="module")
def durable() -> Iterator[str]:
    """The URL of a server with its settings as they come."""
    with tempfile.TemporaryDirectory(prefix="hybridjobs-test-pg-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedPostgres(
            Path(folder) / "data", password=secrets.token_hex(8), port=free_port()
        )
        server.start()
        yield server.url
        server.stop()


@pytest.fixture
async def durable_url(durable: str) -> str:
    service = make_conninfo(durable, user="service", password="service")
    await migrate(durable, logins={service: "hybridjobs_service"})
    return service


class Cluster:
    """An API server: which resources it serves, and what it lets one do."""

    def __init__(self) -> None:
        self.resources = list(RESOURCES)
        self.forbidden: set[tuple[str, str]] = set()
        self.date: str | None = None

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/version", self._version)
        application.router.add_get("/apis/hybridjobs.dev/v1alpha1", self._served)
        reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        application.router.add_post(reviews, self._review)
        return application

    async def _version(self, _: web.Request) -> web.Response:
        headers = {} if self.date is None else {"Date": self.date}
        return web.json_response({"gitVersion": "v1.36.2"}, headers=headers)

    async def _served(self, _: web.Request) -> web.Response:
        if not self.resources:
            return web.json_response({"reason": "NotFound", "message": "no"}, status=404)
        return web.json_response({"resources": [{"name": name} for name in self.resources]})

    async def _review(self, request: web.Request) -> web.Response:
        asked = (await request.json())["spec"]["resourceAttributes"]
        assert asked["namespace"] == ("" if asked["resource"].endswith("reviews") else "jobs")
        plural = "/".join(filter(None, (asked["resource"], asked["subresource"])))
        allowed = (asked["verb"], plural) not in self.forbidden
        return web.json_response({"status": {"allowed": allowed}}, status=201)


@pytest.fixture
async def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def kubeconfig(cluster: Cluster, tmp_path: Path) -> AsyncIterator[str]:
    async with TestServer(cluster.application()) as server:
        path = tmp_path / "kubeconfig"
        document = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": str(server.make_url("/"))[:-1]}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }
        path.write_text(yaml.safe_dump(document))
        yield str(path)


async def _doctor(url: str, *arguments: str, **variables: str) -> tuple[Done, dict[str, Any]]:
    done = await run("doctor", "--json", *arguments, HYBRIDJOBS_DATABASE_URL=url, **variables)
    return done, {finding["check"]: finding for finding in done.json}


async def test_a_database_without_a_standby_is_warned_of(durable_url: str) -> None:
    done, found = await _doctor(durable_url, "--no-cluster")
    assert done.code == 0, done.out
    levels = {check: finding["level"] for check, finding in found.items()}
    assert levels == {
        "database": "ok",
        "durability": "ok",
        "synchronous standby": "warn",
        "database's clock": "ok",
        "schema": "ok",
        "job types": "warn",
        "API access": "warn",
    }
    assert "synchronous_standby_names is empty" in found["synchronous standby"]["message"]
    assert "`hybridjobs token create`" in found["API access"]["action"]
    text = await run("doctor", "--no-cluster", "--database-url", durable_url)
    assert "a failover may lose jobs that were accepted" in text.out


async def test_a_database_that_forgets_fails(database_urls: DatabaseUrls) -> None:
    done, found = await _doctor(database_urls.service, "--no-cluster")
    assert done.code == 1
    assert "fsync and synchronous_commit off" in found["durability"]["message"]


async def test_a_database_that_is_not_there() -> None:
    url = f"postgresql://u:secret@127.0.0.1:{free_port()}/x"
    done, found = await _doctor(url, "--no-cluster")
    assert (done.code, found["database"]["level"]) == (1, "fail")
    assert "secret" not in done.out + done.err
    done, found = await _doctor("", "--no-cluster")
    assert "HYBRIDJOBS_DATABASE_URL" in found["database"]["action"]


async def test_an_old_schema_and_a_paused_queue(durable: str, durable_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(durable, autocommit=True) as owner:
        await owner.execute("SELECT hybridjobs.pause_queue('ana')")
        _, found = await _doctor(durable_url, "--no-cluster")
        assert found["queue"]["message"] == "paused by ana: no job starts"
        await owner.execute("SELECT hybridjobs.resume_queue()")
        await owner.execute("UPDATE hybridjobs.schema_migrations SET version = version - 100")
        try:
            done, found = await _doctor(durable_url, "--no-cluster")
        finally:
            await owner.execute("UPDATE hybridjobs.schema_migrations SET version = version + 100")
    assert (done.code, found["schema"]["action"]) == (1, "run `hybridjobs migrate`")


async def test_a_cluster_that_is_well(durable_url: str, kubeconfig: str) -> None:
    done, found = await _doctor(durable_url, KUBECONFIG=kubeconfig, HYBRIDJOBS_NAMESPACE="jobs")
    assert done.code == 0, done.out
    for check in ("cluster", "API server's clock", "custom resources"):
        assert found[check]["level"] == "ok", found[check]
    assert found["API access"]["message"] == "the cluster's service accounts and users"
    for process in ("ingress", "operator"):
        assert found[f"rights of the {process}"]["level"] == "ok"


async def test_a_cluster_that_is_not(durable_url: str, kubeconfig: str, cluster: Cluster) -> None:
    cluster.resources.remove("hybridjobschedules")
    cluster.forbidden |= {("patch", "hybridjobs/status"), ("get", "pods/log")}
    cluster.forbidden |= {("create", "subjectaccessreviews")}
    cluster.date = "Mon, 01 Jan 2001 00:00:00 GMT"
    done, found = await _doctor(
        durable_url, "--namespace", "jobs", "--process", "operator", KUBECONFIG=kubeconfig
    )
    assert done.code == 1
    assert "hybridjobschedules" in found["custom resources"]["message"]
    missing = found["rights of the operator"]["message"]
    assert missing.endswith("patch hybridjobs.hybridjobs.dev/status, get pods/log")
    assert "rights of the ingress" not in found
    assert found["API access"]["level"] == "warn"
    assert "behind the clock here" in found["API server's clock"]["message"]
    cluster.resources.clear()
    _, found = await _doctor(durable_url, "--namespace", "jobs", KUBECONFIG=kubeconfig)
    assert "hybridjobtypes" in found["custom resources"]["message"]


async def test_no_cluster_is_a_warning(durable_url: str, tmp_path: Path) -> None:
    done, found = await _doctor(durable_url, KUBECONFIG=str(tmp_path / "none"))
    assert (done.code, found["cluster"]["level"]) == (0, "warn")
    assert "--no-cluster" in found["cluster"]["action"]


async def test_tokens_are_a_way_into_the_api(database_urls: DatabaseUrls) -> None:
    variables = {"HYBRIDJOBS_DATABASE_URL": database_urls.service}
    made = await run("token", "create", "ci", "--scope", "read", **variables)
    assert made.code == 0, made.err
    _, found = await _doctor(database_urls.service, "--no-cluster")
    assert (found["API access"]["level"], found["API access"]["message"]) == ("ok", "1 tokens")
    _, found = await _doctor(database_urls.service, "--no-cluster", HYBRIDJOBS_API_TOKEN="x")
    assert found["API access"]["message"] == "1 tokens, HYBRIDJOBS_API_TOKEN"
