"""Reference pages made from the chart: the fields of the resources, and the chart's values."""

import json
from collections.abc import Iterator
from typing import Any

import yaml

from tests.unit.chart.helm import CHART, Object

_VALUES_HEAD = "| value | default | |\n|---|---|---|\n"


def values_table() -> str:
    """A Markdown table of every value, with its default."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = [
        f"| `{path}` | `{json.dumps(default)}` | {_cell(description)} |"
        for path, default, description in _values("", schema, defaults)
    ]
    return _VALUES_HEAD + "\n".join(rows) + "\n"


def _values(prefix: str, schema: Object, defaults: Any) -> Iterator[tuple[str, Any, str]]:
    for name, each in schema["properties"].items():
        if not isinstance(defaults, dict) or name not in defaults:
            continue
        if "properties" in each:
            yield from _values(f"{prefix}{name}.", each, defaults[name])
        else:
            yield prefix + name, defaults[name], each["description"]


def resources_page(crds: list[Object]) -> str:
    """docs/reference/resources.md: the fields of every resource, from its definition."""
    introduction = (
        "Made from the custom resource definitions by `make manifests`. The same text, in a "
        "terminal: `kubectl explain hybridjob.spec`.\n"
    )
    parts = ["# Resources\n", introduction]
    for crd in crds:
        parts += _resource(crd)
    return "\n".join(parts)


def _resource(crd: Object) -> Iterator[str]:
    names = crd["spec"]["names"]
    (version,) = crd["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    short = ", ".join(f"`{name}`" for name in names["shortNames"])
    yield f"## {names['kind']}\n"
    yield f"`{crd['spec']['group']}/{version['name']}`, namespaced, short {short}.\n"
    yield _prose(schema["description"])
    for part in ("spec", "status"):
        yield f"### {names['kind']}.{part}\n"
        yield schema["properties"][part]["description"] + "\n"
        yield "| field | | |\n|---|---|---|"
        for path, field in _fields("", schema["properties"][part]):
            yield f"| `{path}` | {_kind(field)} | {_cell(field.get('description', ''))} |"
        yield ""
    yield "### Rules\n"
    yield "Beside types and bounds the API server refuses what breaks one of these:\n"
    for message in dict.fromkeys(_rules(schema)):
        yield f"- {message}"
    columns = version["additionalPrinterColumns"]
    selectable = ", ".join(f"`{each['jsonPath'][1:]}`" for each in version["selectableFields"])
    yield "\n### In kubectl\n"
    yield f"Columns: {', '.join(each['name'] for each in columns if not each.get('priority'))}; "
    yield f"with `-o wide` also {', '.join(e['name'] for e in columns if e.get('priority'))}."
    yield f"Field selectors: {selectable}.\n"


def _fields(prefix: str, schema: Object) -> Iterator[tuple[str, Object]]:
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        yield prefix + name, {**field, "required": name in required}
        yield from _fields(f"{prefix}{name}.", field)
        yield from _fields(f"{prefix}{name}[].", field.get("items", {}))


def _kind(field: Object) -> str:
    """A field's type, bounds and default in a few words."""
    type_ = field["type"]
    if type_ == "array":
        type_ = f"list of {field['items']['type']}"
    elif type_ == "object" and "additionalProperties" in field:
        type_ = "map"
    facts = [type_]
    if field["required"]:
        facts.append("required")
    if "enum" in field:
        facts[0] = " \\| ".join(f"`{value}`" for value in field["enum"])
    if "minimum" in field and field.get("maximum", 2**31 - 1) < 2**31 - 1:
        facts.append(f"{field['minimum']} to {field['maximum']}")
    if field.get("default", {}) != {}:
        facts.append(f"default `{json.dumps(field['default'])}`")
    return ", ".join(facts)


def _rules(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for rule in schema.get("x-kubernetes-validations", []):
            yield rule["message"]
        for key, value in schema.items():
            if key != "x-kubernetes-validations":
                yield from _rules(value)


def _prose(text: str) -> str:
    """A description: its indented parts are YAML."""
    lines: list[str] = []
    fenced = False
    for line in text.splitlines():
        if line and line.startswith("  ") is not fenced:
            lines.append("```yaml" if not fenced else "```\n")
            fenced = not fenced
        lines.append(line.removeprefix("  ") if fenced else line)
    if fenced:
        lines.append("```")
    return "\n".join(lines).replace("\n\n```\n", "\n```\n") + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
