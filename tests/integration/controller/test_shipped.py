"""What a release ships as files, applied to the real API server."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridjobs.controller.shipped import apply_shipped
from hybridjobs.kube.client import HYBRIDJOB_SCHEDULES, HYBRIDJOB_TYPES, Resource
from hybridjobs.model import GROUP, VERSION
from tests.integration.controller.scene import Scene

LABELS = {"app.kubernetes.io/managed-by": "test-shipped"}
SELECTOR = "app.kubernetes.io/managed-by=test-shipped"
RESOURCES = (HYBRIDJOB_TYPES, HYBRIDJOB_SCHEDULES)


def _body(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "labels": LABELS}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": metadata, "spec": spec}


def _ship(folder: Path, *bodies: dict[str, Any]) -> None:
    for path in folder.iterdir():
        path.unlink()
    for body in bodies:
        file = folder / f"{body['kind']}_{body['metadata']['name']}.yaml"
        file.write_text(yaml.safe_dump(body))


TYPE = _body("HybridJobType", "test-shipped", {"type": "test/shipped"})
SCHEDULE = _body(
    "HybridJobSchedule", "test-shipped", {"schedule": "0 */6 * * *", "type": "test/shipped"}
)


@pytest.fixture
async def apply(scene: Scene, tmp_path: Path) -> AsyncIterator["_Apply"]:
    yield _Apply(scene, tmp_path)
    _ship(tmp_path)
    await apply_shipped(scene.kubernetes, tmp_path, namespace=scene.namespace, selector=SELECTOR)


class _Apply:
    """Ships these objects and no others."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self._scene, self._folder = scene, folder

    async def __call__(self, *bodies: dict[str, Any]) -> None:
        _ship(self._folder, *bodies)
        await apply_shipped(
            self._scene.kubernetes,
            self._folder,
            namespace=self._scene.namespace,
            selector=SELECTOR,
        )


async def _specs(scene: Scene, resource: Resource, name: str) -> list[dict[str, Any]]:
    bodies = await scene.kubernetes.list(resource, scene.namespace)
    return [body["spec"] for body in bodies if body["metadata"]["name"] == name]


async def test_types_and_schedules_come_change_and_go(scene: Scene, apply: _Apply) -> None:
    await apply(TYPE, SCHEDULE)
    for resource in RESOURCES:
        assert len(await _specs(scene, resource, "test-shipped")) == 1
    # Whoever suspends it means it, whatever the next release says of the rest.
    await scene.kubernetes.patch(
        HYBRIDJOB_SCHEDULES, scene.namespace, "test-shipped", {"spec": {"suspend": True}}
    )
    hourly = SCHEDULE | {"spec": SCHEDULE["spec"] | {"schedule": "0 * * * *"}}
    await apply(TYPE, hourly)
    [spec] = await _specs(scene, HYBRIDJOB_SCHEDULES, "test-shipped")
    assert (spec["schedule"], spec["suspend"]) == ("0 * * * *", True)
    await apply(TYPE)
    assert await _specs(scene, HYBRIDJOB_SCHEDULES, "test-shipped") == []
    assert len(await _specs(scene, HYBRIDJOB_TYPES, "test-shipped")) == 1
    await apply()
    assert await _specs(scene, HYBRIDJOB_TYPES, "test-shipped") == []


async def test_one_that_the_api_refuses_keeps_none_of_the_others_waiting(
    scene: Scene, apply: _Apply
) -> None:
    nameless = _body("HybridJobType", "a-refused", {"type": "no slash in it"})
    await apply(nameless, TYPE)
    assert await _specs(scene, HYBRIDJOB_TYPES, "a-refused") == []
    assert len(await _specs(scene, HYBRIDJOB_TYPES, "test-shipped")) == 1


async def test_an_administrator_s_schedule_of_the_same_name_stays(
    scene: Scene, apply: _Apply
) -> None:
    theirs = _body("HybridJobSchedule", "test-shipped", {"schedule": "5 5 * * *", "type": "test/x"})
    del theirs["metadata"]["labels"]
    made = await scene.kubernetes.apply(HYBRIDJOB_SCHEDULES, scene.namespace, theirs, force=True)
    try:
        await apply(TYPE, SCHEDULE)
        await apply(TYPE)
        [spec] = await _specs(scene, HYBRIDJOB_SCHEDULES, "test-shipped")
        assert spec["schedule"] == "5 5 * * *"
    finally:
        await scene.kubernetes.delete(
            HYBRIDJOB_SCHEDULES, scene.namespace, "test-shipped", uid=made["metadata"]["uid"]
        )
