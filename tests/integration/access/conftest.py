"""An ingress that asks a real API server about its callers, by the chart's own rights."""

import json
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from hybridjobs.ingress.cluster import Cluster as IngressCluster
from hybridjobs.kube.client import Kubernetes
from tests.builders import job_type
from tests.cluster import Cluster
from tests.conftest import DatabaseUrls
from tests.integration.controller.scene import namespace_of_its_own
from tests.integration.ingress.conftest import Running, running
from tests.unit.chart.helm import named, render
from tests.waiting import until

AUDIENCE = "hybridjobs"


@dataclass(frozen=True)
class Accounts:
    """A namespace with service accounts, and what a test does to them."""

    cluster: Cluster
    namespace: str

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return subprocess.run(
            [self.cluster.kubectl, "--namespace", self.namespace, *arguments],
            env=self.cluster.environment,
            input=stdin,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def make(self, name: str, *verbs: str) -> None:
        """A service account that may do this with HybridJobs, here."""
        self.kubectl("create", "serviceaccount", name)
        if verbs:
            resource = "--resource=hybridjobs.hybridjobs.dev"
            self.kubectl("create", "role", name, f"--verb={','.join(verbs)}", resource)
            account = f"--serviceaccount={self.namespace}:{name}"
            self.kubectl("create", "rolebinding", name, f"--role={name}", account)
            # The API server takes it up a moment later.
            until(lambda: self._may(name, verbs[-1]))

    def _may(self, name: str, verb: str) -> bool:
        asked = ["auth", "can-i", verb, "hybridjobs.hybridjobs.dev", "--as", self.user(name)]
        done = subprocess.run(
            [self.cluster.kubectl, "--namespace", self.namespace, *asked],
            env=self.cluster.environment,
            check=False,
            capture_output=True,
        )
        return done.returncode == 0

    def token(self, name: str, *, audience: str | None = AUDIENCE, seconds: int = 600) -> str:
        options = [f"--duration={seconds}s"]
        if audience is not None:
            options.append(f"--audience={audience}")
        return self.kubectl("create", "token", name, *options).strip()

    def user(self, name: str) -> str:
        """The name by which the API server knows the account."""
        return f"system:serviceaccount:{self.namespace}:{name}"


@pytest.fixture(scope="session")
def accounts() -> Iterator[Accounts]:
    namespace = f"test-{secrets.token_hex(4)}"
    with namespace_of_its_own(namespace) as cluster:
        accounts = Accounts(cluster, namespace)
        release = render(release=namespace, namespace=namespace)
        name = f"{namespace}-hybridjobs.{namespace}.api"
        rights = [named(release, kind, name) for kind in ("ClusterRole", "ClusterRoleBinding")]
        documents = "---\n".join(json.dumps(each) + "\n" for each in rights)
        accounts.kubectl("create", "serviceaccount", f"{namespace}-hybridjobs-ingress")
        accounts.kubectl("create", "-f", "-", stdin=documents)
        try:
            yield accounts
        finally:
            accounts.kubectl("delete", "-f", "-", "--wait=false", stdin=documents)


@pytest.fixture(scope="session")
def kubeconfig(accounts: Accounts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The credentials of the release's ingress."""
    document = yaml.safe_load(accounts.cluster.kubeconfig.read_text())
    account = f"{accounts.namespace}-hybridjobs-ingress"
    token = accounts.token(account, audience=None, seconds=3600)
    document["users"] = [
        {"name": each["name"], "user": {"token": token}} for each in document["users"]
    ]
    path = tmp_path_factory.mktemp("access") / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
async def kubernetes(kubeconfig: Path) -> AsyncIterator[Kubernetes]:
    configuration = Configuration()
    configuration.client_session_kwargs = {"trust_env": False}
    await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    async with Kubernetes(configuration, field_manager="hybridjobs-api") as kubernetes:
        yield kubernetes


@pytest.fixture
async def ingress(
    accounts: Accounts, kubernetes: Kubernetes, database_urls: DatabaseUrls
) -> AsyncIterator[Running]:
    cluster = IngressCluster(kubernetes, namespace=accounts.namespace, audiences=[AUDIENCE])
    async with running(database_urls.service, inline_children=0, cluster=cluster) as ingress:
        await ingress.register(job_type())
        yield ingress


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The first test waits for the definitions, and perhaps for helm to be built.
    for item in items:
        if "tests/integration/access/" in item.nodeid:
            item.add_marker(pytest.mark.timeout(900))
