"""Writes what is made from the chart: `python -m tests.unit.chart.render` (`make manifests`).

These are manifests/ (custom resource definitions and a kustomization), the table in the chart's
README and docs/reference/resources.md. A test fails where they differ from the chart.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from tests.unit.chart.helm import CHART, Object, of_kind, template
from tests.unit.chart.reference import resources_page, values_table

ROOT = CHART.parents[1]
MANIFESTS = ROOT / "manifests"
_HEADER = "# Made from charts/hybridjobs by `make manifests`: change the chart instead.\n"
_SOURCE = "# Source: hybridjobs/templates/"
_TABLE_BEGIN, _TABLE_END = "<!-- values -->\n", "<!-- end of values -->\n"

# Secrets cannot stand in a file for everyone: they are made once, by hand (docs/install.md).
VALUES = {
    "database": {"embedded": False, "existingSecret": "hybridjobs-database"},
    "api": {"existingSecret": "hybridjobs-api"},
    "webhooks": {"github": {"existingSecret": "hybridjobs-github-webhook"}},
    "callbacks": {"existingSecret": "hybridjobs-callbacks"},
    "github": {"existingSecret": "hybridjobs-github"},
}
NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {
        "name": "hybridjobs",
        "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
    },
}


def generated() -> dict[Path, str]:
    """Every file that is made from the chart, with its text."""
    components = _components()
    crds = components.pop("crds")
    files = {"namespace.yaml": [NAMESPACE]}
    files |= {f"crds/{crd['spec']['names']['plural']}.yaml": [crd] for crd in crds}
    files |= {f"{name}.yaml": objects for name, objects in components.items()}
    image = of_kind(components["operator"], "Deployment")[0]["spec"]["template"]["spec"][
        "containers"
    ][0]["image"]
    texts = {MANIFESTS / name: _dump(objects) for name, objects in files.items()}
    texts[MANIFESTS / "kustomization.yaml"] = _dump([_kustomization(list(files), image)])
    readme = CHART / "README.md"
    before, _, rest = readme.read_text().partition(_TABLE_BEGIN)
    _, _, after = rest.partition(_TABLE_END)
    texts[readme] = before + _TABLE_BEGIN + "\n" + values_table() + "\n" + _TABLE_END + after
    texts[ROOT / "docs" / "reference" / "resources.md"] = resources_page(crds)
    return texts


def differing() -> list[Path]:
    """The files that are not what the chart makes, and those in manifests/ that it does not."""
    wanted = generated()
    there = {path for path in MANIFESTS.rglob("*") if path.is_file()}
    return sorted(
        path
        for path in there | set(wanted)
        if not path.exists() or path.read_text() != wanted.get(path)
    )


def _components() -> dict[str, list[Object]]:
    """The release's objects by the folder of templates/ that they come from."""
    components: dict[str, list[Object]] = {}
    for document in template(VALUES).split("\n---\n"):
        parsed = yaml.safe_load(document)
        if not parsed:
            continue
        source = document[document.index(_SOURCE) + len(_SOURCE) :]
        components.setdefault(source.split("/")[0], []).append(_without_helm(parsed))
    return dict(sorted(components.items()))


def _without_helm(object_: Object) -> Object:
    """The object without the marks that helm puts on what it manages."""
    metadata = object_["metadata"]
    for group in ("labels", "annotations"):
        for name in [*metadata.get(group, {})]:
            if name.startswith("helm.sh/") or name == "app.kubernetes.io/managed-by":
                del metadata[group][name]
        if not metadata.get(group, True):
            del metadata[group]
    return object_


def _kustomization(files: list[str], image: str) -> Object:
    name, _, tag = image.partition(":")
    # A value in brackets is a regular expression: HYBRIDJOBS_WORKER_IMAGE_PULL_POLICY matches too.
    worker = "[name=operator].env.[name=^HYBRIDJOBS_WORKER_IMAGE$].value"
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": files,
        "images": [{"name": name, "newName": name, "newTag": tag}],
        # The operator is told its own image by a variable, which `images` does not change.
        "replacements": [
            {
                "source": {
                    "kind": "Deployment",
                    "name": "hybridjobs-operator",
                    "fieldPath": "spec.template.spec.containers.[name=operator].image",
                },
                "targets": [
                    {
                        "select": {"kind": "Deployment", "name": "hybridjobs-operator"},
                        "fieldPaths": [f"spec.template.spec.containers.{worker}"],
                    }
                ],
            }
        ],
    }


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _dump(objects: list[Any]) -> str:
    return _HEADER + "---\n".join(
        yaml.dump(each, Dumper=_Dumper, sort_keys=False, width=100) for each in objects
    )


def main() -> int:
    """Write the files, or with --check only say which differ."""
    if "--check" in sys.argv[1:]:
        for path in differing():
            print(f"{path.relative_to(ROOT)} is not what the chart makes: make manifests")
        return 1 if differing() else 0
    wanted = generated()
    for path in differing():
        if path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
        else:
            path.unlink()
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
