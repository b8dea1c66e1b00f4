"""The custom resource definitions, as text; tests/integration/crds has them at work."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from hybridjobs.model import GROUP, VERSION, Decision, JobTypeSpec, ScheduleSpec
from hybridjobs.schedules.ticks import ALIASES
from tests.unit.chart.helm import Object, crds, of_kind, render


@pytest.fixture(scope="module")
def schemas() -> dict[str, Object]:
    return {
        crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for crd in crds()
    }


def _nodes(path: str, schema: Object) -> Iterator[tuple[str, Object]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _nodes(f"{path}.{name}", child)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _nodes(f"{path}[]", schema[key])


def test_names_group_and_version_are_those_of_the_program() -> None:
    found = {
        crd["metadata"]["name"]: (
            crd["spec"]["group"],
            crd["spec"]["versions"][0]["name"],
            crd["spec"]["scope"],
            crd["spec"]["names"]["shortNames"],
        )
        for crd in crds()
    }
    assert found == {
        f"hybridjobs.{GROUP}": (GROUP, VERSION, "Namespaced", ["hj"]),
        f"hybridjobtypes.{GROUP}": (GROUP, VERSION, "Namespaced", ["hjt"]),
        f"hybridjobschedules.{GROUP}": (GROUP, VERSION, "Namespaced", ["hjs"]),
    }


def test_every_string_list_and_map_is_bounded(schemas: dict[str, Object]) -> None:
    """Without bounds the API server cannot estimate what a rule costs, and refuses it."""
    for kind, schema in schemas.items():
        for path, node in _nodes(kind, schema):
            if node.get("type") == "string" or node.get("x-kubernetes-int-or-string"):
                assert "maxLength" in node, path
            if node.get("type") == "array":
                assert "maxItems" in node, path
            if "additionalProperties" in node:
                assert "maxProperties" in node, path


def test_kubectl_explain_has_a_word_on_every_field(schemas: dict[str, Object]) -> None:
    for kind, schema in schemas.items():
        for path, node in _nodes(kind, schema):
            if not path.endswith(("[]", ".metadata")):
                assert len(node["description"]) > 5, path


@pytest.mark.parametrize(
    ("kind", "assumed", "some"),
    [
        (
            "HybridJobType",
            JobTypeSpec(type="a"),
            {"deadlineSeconds", "startDeadlineSeconds", "retry", "mode"},
        ),
        (
            "HybridJobSchedule",
            ScheduleSpec(schedule="@daily", type="a"),
            {"timeZone", "payload", "suspend", "concurrencyPolicy", "historyLimit"},
        ),
    ],
)
def test_the_defaults_are_those_that_the_program_assumes(
    schemas: dict[str, Object], kind: str, assumed: BaseModel, some: set[str]
) -> None:
    def defaults(schema: Object) -> dict[str, Any]:
        return {
            name: defaults(field) if field["default"] == {} else field["default"]
            for name, field in schema.get("properties", {}).items()
            if "default" in field
        }

    given = defaults(schemas[kind]["properties"]["spec"])
    ours = assumed.model_dump(mode="json", by_alias=True)
    assert given == {name: ours[name] for name in given}
    assert some <= set(given)


@pytest.mark.parametrize(
    ("kind", "model"), [("HybridJobType", JobTypeSpec), ("HybridJobSchedule", ScheduleSpec)]
)
def test_the_program_reads_every_field(
    schemas: dict[str, Object], kind: str, model: type[BaseModel]
) -> None:
    names = {field.alias or name for name, field in model.model_fields.items()}
    assert names == set(schemas[kind]["properties"]["spec"]["properties"])


def test_a_schedule_shows_every_decision_and_takes_every_alias(schemas: dict[str, Object]) -> None:
    schema = schemas["HybridJobSchedule"]["properties"]
    entry = schema["status"]["properties"]["history"]["items"]["properties"]
    assert set(entry["decision"]["enum"]) == {decision.value for decision in Decision}
    [rule] = schema["spec"]["properties"]["schedule"]["x-kubernetes-validations"]
    for alias in ALIASES:
        assert alias in rule["message"]
        assert alias.removeprefix("@") in rule["rule"]


def test_they_stay_when_the_release_goes_unless_told() -> None:
    def kept(values: dict[str, Any]) -> list[bool]:
        found = of_kind(render({"crds": values}), "CustomResourceDefinition")
        return [
            "helm.sh/resource-policy" in each["metadata"].get("annotations", {}) for each in found
        ]

    assert kept({}) == [True, True, True]
    assert kept({"keep": False}) == [False, False, False]
    assert kept({"enabled": False}) == []
