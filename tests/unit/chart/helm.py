"""The chart as helm renders it."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import tools

CHART = Path(__file__).parents[3] / "charts" / "hybridjobs"
KUBERNETES = "1.35.4"

Object = dict[str, Any]
"""A Kubernetes object as YAML has it."""


class HelmError(Exception):
    """helm refused; the message is what it wrote."""


@cache
def program() -> Path:
    return tools.helm()


def helm(*arguments: str | Path, input_: str | None = None) -> str:
    result = subprocess.run(
        [program(), *arguments], input=input_, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise HelmError(result.stderr.strip() or result.stdout.strip())
    return result.stdout


def template(
    values: Mapping[str, Any] | None = None,
    *,
    release: str = "hybridjobs",
    namespace: str = "hybridjobs",
    kubernetes: str = KUBERNETES,
    show_only: Sequence[str] = (),
) -> str:
    """The text of `helm template` with these values over the chart's own."""
    return helm(
        *("template", release, CHART, "--namespace", namespace, "--kube-version", kubernetes),
        *("--values", "-"),
        *(argument for path in show_only for argument in ("--show-only", path)),
        input_=json.dumps(values or {}),
    )


def render(
    values: Mapping[str, Any] | None = None,
    *,
    release: str = "hybridjobs",
    namespace: str = "hybridjobs",
) -> list[Object]:
    """Every object that a release with these values has."""
    text = template(values, release=release, namespace=namespace)
    return [document for document in yaml.safe_load_all(text) if document]


def crds() -> list[Object]:
    """The custom resource definitions."""
    return of_kind(render(), "CustomResourceDefinition")


def of_kind(objects: Sequence[Object], kind: str) -> list[Object]:
    return [each for each in objects if each["kind"] == kind]


def named(objects: Sequence[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    (found,) = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]
    return found


def pod_templates(objects: Sequence[Object]) -> dict[str, Object]:
    """The pod templates by `Kind/name` of their workload."""
    return {
        f"{each['kind']}/{each['metadata']['name']}": each["spec"]["template"]
        for each in objects
        if each["kind"] in ("Deployment", "StatefulSet")
    }


def containers(template_: Object) -> list[Object]:
    """All containers of a pod template, those of its start included."""
    spec = template_["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def environment(template_: Object, container: str) -> dict[str, Any]:
    """A container's variables: the value, or the valueFrom."""
    (found,) = [each for each in containers(template_) if each["name"] == container]
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in found["env"]}
