"""The chart's definitions, roles and policy on the cluster that `make cluster` gives."""

from collections.abc import Iterator

import pytest

from tests.cluster import current
from tests.integration.crds.api import Api


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    found = Api(current())
    try:
        found.set_up()
        yield found
    finally:
        found.tear_down()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The first test waits for the definitions, and perhaps for helm to be built.
    for item in items:
        if "tests/integration/crds/" in item.nodeid:
            item.add_marker(pytest.mark.timeout(900))
