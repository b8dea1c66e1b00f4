import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.cluster import Cluster
from tests.conftest import DatabaseUrls
from tests.integration.controller.scene import Scene, namespace_of_its_own, opened


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
