"""helm is built once per machine, which takes minutes the first time."""

import pytest

from tests.unit.chart import helm


@pytest.fixture(scope="session", autouse=True)
def _helm() -> None:
    helm.program()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/unit/chart/" in item.nodeid and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))
