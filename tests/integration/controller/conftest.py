import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from hybridjobs.controller.watchdog import Told
from hybridjobs.kube.client import NAMESPACES, Kubernetes, Resource
from tests.cluster import Cluster
from tests.conftest import DatabaseUrls
from tests.integration.controller.proxy import Proxy, proxied
from tests.integration.controller.scene import Scene, configured, namespace_of_its_own, opened
from tests.integration.controller.watching import Watching
from tests.waiting import eventually


@pytest.fixture(scope="session")
def jobs_namespace() -> str:
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def cluster(jobs_namespace: str) -> Iterator[Cluster]:
    with namespace_of_its_own(jobs_namespace) as cluster:
        yield cluster


@pytest.fixture
async def scene(
    cluster: Cluster, jobs_namespace: str, database_urls: DatabaseUrls
) -> AsyncIterator[Scene]:
    async with opened(cluster, jobs_namespace, database_urls.service) as scene:
        yield scene


@pytest.fixture
async def kubernetes(cluster: Cluster) -> AsyncIterator[Kubernetes]:
    async with Kubernetes(await configured(cluster), field_manager="test") as kubernetes:
        yield kubernetes


@pytest.fixture
async def proxy(cluster: Cluster) -> AsyncIterator[Proxy]:
    async with proxied(await configured(cluster)) as proxy:
        yield proxy


@pytest.fixture
async def namespace(kubernetes: Kubernetes) -> AsyncIterator[str]:
    """One for this test alone, whose watches see nothing of others."""
    name = f"watched-{secrets.token_hex(4)}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    made = await kubernetes.create(NAMESPACES, None, body)
    await _settled(kubernetes, name)
    yield name
    await kubernetes.delete(NAMESPACES, None, name, uid=made["metadata"]["uid"])


@pytest.fixture
def changes(kubernetes: Kubernetes, namespace: str) -> Watching:
    """Where a test makes objects that others watch."""
    return Watching(kubernetes, namespace, Told())


async def _settled(kubernetes: Kubernetes, namespace: str) -> None:
    """Until pods may be made there."""
    accounts = Resource("", "v1", "serviceaccounts")
    await eventually(lambda: kubernetes.list(accounts, namespace))
