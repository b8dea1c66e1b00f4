"""An installed release, as the end-to-end tests, the demo and the benches use it."""

import asyncio
import base64
import contextlib
import json
import re
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from tests.cluster import Cluster, current
from tests.recorded import Delivery, deliveries, signed_headers

ROOT = Path(__file__).parents[2]
IMAGE = "hybridjobs:dev"

Result = TypeVar("Result")


class CommandFailedError(Exception):
    """A command ended with another code than 0; the message holds what it wrote."""


@dataclass
class Release:
    """One `helm install`, in a namespace of its own, with the recorded GitHub beside it."""

    cluster: Cluster
    namespace: str
    name: str = "hybridjobs"
    values: dict[str, Any] = field(default_factory=dict)
    say: Callable[[str], None] = lambda _: None

    # Installing ------------------------------------------------------------------------------

    def install(self) -> None:
        """Install or upgrade, and wait until everything is ready."""
        self.say(f"namespace {self.namespace}, recorded GitHub API")
        self.make_namespace(self.namespace)
        manifest = _run(
            [
                sys.executable,
                "-m",
                "tests.recorded",
                "manifest",
                "--namespace",
                self.namespace,
                "--image",
                IMAGE,
            ],
            env=self._environment(),
        )
        # Too large for the annotation that a client-side apply keeps.
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifest)
        # Whoever was killed while at it has left helm's own lock: what it made outlives that.
        if self.helm("list", "--pending", "--short", "--filter", f"^{self.name}$").strip():
            self.helm("uninstall", self.name, "--wait")
        self.say(f"helm upgrade --install --wait {self.name}")
        # CRDs outlive a release (crds.keep), and another namespace's release may have made them.
        self.helm(
            *("upgrade", "--install", self.name, str(ROOT / "charts/hybridjobs"), "--values", "-"),
            *("--take-ownership", "--wait", "--timeout", "5m"),
            stdin=json.dumps(self._all_values()),
        )
        self.kubectl("rollout", "status", "deployment/recorded-github", "--timeout=120s")

    def install_anew(self) -> None:
        """Install it where nothing is left of an earlier run, which may have been killed."""
        self.uninstall()
        self.install()

    def make_namespace(self, name: str) -> None:
        """A namespace in which only restricted pods may run."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps(_namespace(name)), scoped=False)

    def uninstall(self) -> None:
        """Remove the release and its namespace."""
        self.helm("uninstall", self.name, "--ignore-not-found", "--wait")
        gone = ("--ignore-not-found", "--timeout=5m")
        self.kubectl("delete", "namespace", self.namespace, *gone, scoped=False)

    def _all_values(self) -> dict[str, Any]:
        return {
            "image": {"repository": "hybridjobs", "tag": "dev", "pullPolicy": "IfNotPresent"},
            "database": {"storage": {"size": "1Gi"}},
            **self.values,
            "github": {
                "apiUrl": f"http://recorded-github.{self.namespace}.svc",
                **self.values.get("github", {}),
            },
        }

    # Commands --------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, stdin: str | None = None, scoped: bool = True) -> str:
        """Run kubectl, in the release's namespace unless not `scoped`; returns what it printed."""
        scope = ["--namespace", self.namespace] if scoped else []
        return _run(
            [str(self.cluster.kubectl), *scope, *arguments], env=self._environment(), stdin=stdin
        )

    def helm(self, *arguments: str, stdin: str | None = None) -> str:
        """Run helm in the release's namespace."""
        return _run(
            [str(self.cluster.helm), "--namespace", self.namespace, *arguments],
            env=self._environment(),
            stdin=stdin,
        )

    def objects(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """The objects of that kind, as the API server has them."""
        arguments = ["get", kind, "-o", "json", *(["-l", selector] if selector else [])]
        items: list[dict[str, Any]] = json.loads(self.kubectl(*arguments))["items"]
        return items

    def object(self, kind: str, name: str) -> dict[str, Any]:
        """One object."""
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def apply(self, body: dict[str, Any]) -> None:
        """`kubectl apply` of one object."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def delete_pods(self, component: str) -> None:
        """Kill the component's pods without a grace period, as a crash would."""
        self.kubectl(
            "delete", "pod", "-l", self._selector(component), "--grace-period=0", "--force"
        )

    def ready(self, component: str) -> None:
        """Wait until the component's Deployment is fully ready."""
        self.kubectl("rollout", "status", f"deployment/{self.name}-{component}", "--timeout=180s")

    def scale(self, component: str, replicas: int) -> None:
        """Scale the component's Deployment, and wait until pods beyond that are gone."""
        self.kubectl("scale", f"deployment/{self.name}-{component}", f"--replicas={replicas}")
        if replicas == 0:
            self.kubectl(
                "wait", "pod", "-l", self._selector(component), "--for=delete", "--timeout=180s"
            )
        else:
            self.ready(component)

    def secret(self, name: str, key: str) -> str:
        """A value of one of the release's Secrets."""
        data = self.object("secret", f"{self.name}-{name}")["data"][key]
        return base64.b64decode(data).decode()

    def may(self, account: str, verb: str, kind: str) -> bool:
        """Whether the account may do that in this namespace."""
        try:
            return self.kubectl("auth", "can-i", verb, kind, f"--as={account}").strip() == "yes"
        except CommandFailedError:
            return False  # its way to say no

    def _selector(self, component: str) -> str:
        return f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component={component}"

    def _environment(self) -> dict[str, str]:
        return self.cluster.environment

    # Access ----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def access(self) -> AsyncIterator["Access"]:
        """A way in to webhooks, API and database, whatever kind of cluster it is."""
        async with contextlib.AsyncExitStack() as stack:
            ends = [
                await stack.enter_async_context(self._service(service, port))
                for service, port in (
                    (f"{self.name}-webhooks", 8080),
                    (f"{self.name}-api", 8081),
                    (f"{self.name}-postgres", 5432),
                    ("recorded-github", 80),
                )
            ]
            webhooks, api, database, github = ends
            client = await stack.enter_async_context(httpx.AsyncClient(timeout=30, trust_env=False))
            url = self.secret("database", "migrateUrl")
            yield Access(
                client=client,
                webhooks=f"http://{webhooks}",
                api=f"http://{api}",
                github=f"http://{github}",
                token=self.secret("api", "token"),
                webhook_secret=self.secret("github-webhook", "secret"),
                database_url=make_conninfo(
                    url, host=database.split(":")[0], port=int(database.split(":")[1])
                ),
            )

    @contextlib.asynccontextmanager
    async def worker_api(self) -> AsyncIterator[str]:
        """The URL of the workers' API, as a pod would use it."""
        async with self._service(f"{self.name}-worker", 8082) as end:
            yield f"http://{end}"

    @contextlib.asynccontextmanager
    async def _service(self, service: str, port: int) -> AsyncIterator[str]:
        """host:port of a Service: its ClusterIP where this machine has a route, else a forward."""
        if self.cluster.kind == "native":
            address = self.object("service", service)["spec"]["clusterIP"]
            await _reachable(address, port)
            yield f"{address}:{port}"
            return
        forward = await asyncio.create_subprocess_exec(
            self.cluster.kubectl,
            *("--namespace", self.namespace, "port-forward"),
            *(f"service/{service}", f":{port}"),
            env=self._environment(),
            stdout=subprocess.PIPE,
        )
        assert forward.stdout is not None
        try:
            line = (await forward.stdout.readline()).decode()
            found = re.search(r"(127\.0\.0\.1:\d+)", line)
            if found is None:
                raise CommandFailedError(f"port-forward of {service} said: {line!r}")
            yield found[1]
        finally:
            forward.kill()
            await forward.wait()


@dataclass
class Access:
    """Requests to a release, and its database."""

    client: httpx.AsyncClient
    webhooks: str
    api: str
    github: str
    token: str = field(repr=False)
    webhook_secret: str = field(repr=False)
    database_url: str = field(repr=False)

    async def deliver(
        self, delivery: Delivery, *, delivery_id: str | None = None, secret: str | None = None
    ) -> httpx.Response:
        """Send a recorded GitHub webhook, signed; `delivery_id` makes it another delivery."""
        secret = self.webhook_secret if secret is None else secret
        return await self.client.post(
            f"{self.webhooks}/webhooks/github",
            content=delivery.payload,
            headers=signed_headers(secret, delivery, delivery_id=delivery_id),
        )

    async def fill(self, full_name: str, pull_requests: int) -> None:
        """Give a recorded repository so many pull requests, made of the recorded ones."""
        await self.tell_github("large", {"fullName": full_name, "pullRequests": pull_requests})

    async def tell_github(self, switch: str, plan: dict[str, Any]) -> None:
        """Change the recorded GitHub: POST /_test/SWITCH (`tests.recorded.server`)."""
        response = await self.client.post(f"{self.github}/_test/{switch}", json=plan)
        response.raise_for_status()

    async def ask_github(self, what: str, **query: str) -> httpx.Response:
        """What the recorded GitHub knows: GET /_test/WHAT."""
        response = await self.client.get(f"{self.github}/_test/{what}", params=query)
        return response.raise_for_status()

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request to the API, with the token."""
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        return await self.client.request(method, f"{self.api}{path}", headers=headers, **options)

    async def submit(self, type_: str, payload: object = None, **fields: Any) -> str:
        """Submit a job; returns its id."""
        body = {"type": type_, "payload": payload if payload is not None else {}, **fields}
        response = await self.request("POST", "/api/jobs", json=body)
        if response.status_code not in (200, 202):
            raise CommandFailedError(f"{response.status_code}: {response.text}")
        job_id: str = response.json()["id"]
        return job_id

    async def job(self, job_id: str) -> dict[str, Any]:
        """The job, with its attempts and their logs."""
        response = await self.request("GET", f"/api/jobs/{job_id}", params={"logs": "true"})
        response.raise_for_status()
        found: dict[str, Any] = response.json()
        return found

    async def until(
        self,
        job_id: str,
        *statuses: str,
        seconds: float = 90,
        seen: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> dict[str, Any]:
        """Wait until the job has one of the statuses; the terminal ones if none is named."""
        wanted = statuses or ("completed", "failed", "cancelled")

        async def look() -> dict[str, Any] | None:
            try:
                job = await self.job(job_id)
            except httpx.HTTPError:
                return None  # the ingress is away, as some tests mean it to be
            seen(job)
            return job if job["status"] in wanted else None

        return await eventually(look, seconds=seconds, what=f"job {job_id} to be {wanted}")

    async def quiet(self, *, seconds: float = 150) -> None:
        """Wait until no job is open, but those of a later day: what follows, the caller does."""

        async def looked() -> bool | None:
            [row] = await self.sql(
                "SELECT count(*) AS open FROM hybridjobs.background_jobs"
                " WHERE status IN ('queued', 'processing') AND run_at < now() + interval '1 day'"
            )
            return True if row["open"] == 0 else None

        await eventually(looked, seconds=seconds, what="all jobs to be over")

    async def sql(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        """Rows of a query by the database's owner."""
        async with await psycopg.AsyncConnection.connect(
            self.database_url, autocommit=True, row_factory=dict_row
        ) as connection:
            cursor = await connection.execute(query.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []


async def eventually(
    look: Callable[[], Awaitable[Result | None]], *, seconds: float, what: str
) -> Result:
    """What `look` finds, as soon as it finds something; AssertionError when it never does."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if (found := await look()) is not None:
            return found
        await asyncio.sleep(0.25)
    raise AssertionError(f"waited {seconds:g} s for {what}")


async def _reachable(address: str, port: int) -> None:
    """Wait for it: a Service leads to its pods only some time after they are ready."""

    async def look() -> bool | None:
        try:
            async with asyncio.timeout(5):
                _, writer = await asyncio.open_connection(address, port)
        except OSError:
            return None
        writer.close()
        return True

    await eventually(look, seconds=60, what=f"{address}:{port} to be reachable")


def installed(
    namespace: str, *, values: dict[str, Any], say: Callable[[str], None] = lambda _: None
) -> Release:
    """Install the chart with the built image into the cluster that is there."""
    release = Release(current(), namespace, values=values, say=say)
    release.install()
    return release


def delivery_of(event: str, action: str) -> Delivery:
    """The first recorded delivery of that event and action."""
    return next(each for each in deliveries() if (each.event, each.action) == (event, action))


def unique_key() -> str:
    """A key that no earlier run has used."""
    return f"e2e-{secrets.token_hex(6)}"


def _namespace(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }


def _run(command: list[str], *, env: dict[str, str], stdin: str | None = None) -> str:
    result = subprocess.run(
        command, env=env, input=stdin, capture_output=True, text=True, check=False, cwd=ROOT
    )
    if result.returncode:
        raise CommandFailedError(f"{' '.join(command[:6])} …: {result.stderr.strip()}")
    return result.stdout
