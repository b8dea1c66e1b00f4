"""The examples of the documentation are what they claim to be, one by one."""

import ast
import importlib
import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import yaml

from hybridjobs.model import JobType, type_slug
from hybridjobs.schedules.ticks import Schedule
from tests.unit.docs.pages import ROOT, Example, examples, yaml_examples

_CRDS = {
    crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path in (ROOT / "manifests" / "crds").iterdir()
    for crd in yaml.safe_load_all(path.read_text())
}
_VALUES = json.loads((ROOT / "charts" / "hybridjobs" / "values.schema.json").read_text())
_TYPE_FIELDS = set(_CRDS["HybridJobType"]["properties"]["spec"]["properties"])
_METADATA = {
    "name": "x",
    "uid": "uid",
    "generation": 1,
    "creationTimestamp": "2026-11-24T00:00:00Z",
}


def _label(example: Example) -> str:
    return f"{example.page}:{example.text.splitlines()[0]}"


def _unknown(schema: Any, value: Any, path: str = "") -> Iterator[str]:
    """The members that a structural schema does not have, which the API server would refuse."""
    if isinstance(value, list):
        for each in value:
            yield from _unknown(schema.get("items", {}), each, f"{path}[]")
    if not isinstance(value, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    if "additionalProperties" in schema or "properties" not in schema:
        return
    for name, each in value.items():
        if name not in schema["properties"]:
            yield f"{path}.{name}"
        else:
            yield from _unknown(schema["properties"][name], each, f"{path}.{name}")


def _check_object(body: dict[str, Any]) -> None:
    """As the API server would: by the definition, and what its rules say of names."""
    kind, spec = body["kind"], body["spec"]
    schema = _CRDS[kind]["properties"]["spec"]
    jsonschema_rs.validator_for(schema).validate(spec)
    assert list(_unknown(schema, spec)) == []
    if kind == "HybridJobType":
        parsed = JobType.parse(name="x", uid="uid", generation=1, spec=spec)
        if "metadata" in body:
            assert body["metadata"]["name"] == type_slug(parsed.spec.type)
    elif kind == "HybridJobSchedule":
        schedule = Schedule.parse({**body, "metadata": _METADATA})
        assert isinstance(schedule, Schedule), schedule


@pytest.mark.parametrize("example", yaml_examples(), ids=_label)
def test_yaml_is_a_resource_of_ours_or_part_of_one_or_values_of_the_chart(example: Example) -> None:
    for body in yaml.safe_load_all(example.text):
        names = set(body)
        if "kind" in names:
            _check_object(body)
        elif names == {"spec"}:
            _check_object({"kind": "HybridJobType", **body})
        elif names == {"volumes"}:  # of a pod
            continue
        elif names <= set(_VALUES["properties"]):
            jsonschema_rs.validator_for(_VALUES).validate(body)
        else:
            assert names <= _TYPE_FIELDS
            _check_object({"kind": "HybridJobType", "spec": {"type": "x", **body}})


@pytest.mark.parametrize("example", examples("json"), ids=_label)
def test_json_is_json(example: Example) -> None:
    assert isinstance(json.loads(example.text), dict)


@pytest.mark.parametrize("example", examples("python"), ids=_label)
def test_python_is_python_and_imports_what_there_is(example: Example) -> None:
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(example.text, example.page, "exec", flags)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hybridjobs"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), alias.name


def test_examples_are_found() -> None:
    assert len(yaml_examples()) >= 20
    assert len(examples("json")) >= 5
    assert len(examples("python")) >= 10
