"""manifests/, the chart's README and the reference page are what the chart makes."""

import shutil
import subprocess
from pathlib import Path

import yaml

from tests.cluster import tools
from tests.unit.chart.helm import Object, named, of_kind, pod_templates
from tests.unit.chart.render import MANIFESTS, ROOT, differing


def _kustomize(folder: Path) -> list[Object]:
    text = subprocess.run(
        [tools.kubectl(), "kustomize", folder], capture_output=True, text=True, check=True
    ).stdout
    return list(yaml.safe_load_all(text))


def test_nothing_differs_from_the_chart() -> None:
    assert [str(path.relative_to(ROOT)) for path in differing()] == []


def test_the_kustomization_is_a_whole_installation_without_secrets() -> None:
    objects = _kustomize(MANIFESTS)
    assert len(of_kind(objects, "CustomResourceDefinition")) == 3
    assert set(pod_templates(objects)) == {
        "Deployment/hybridjobs-ingress",
        "Deployment/hybridjobs-operator",
    }
    assert of_kind(objects, "Secret") == []
    (namespace,) = of_kind(objects, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    namespaced = {each["metadata"].get("namespace") for each in objects}
    assert namespaced == {None, namespace["metadata"]["name"]}
    assert not any("helm" in str(each["metadata"]).lower() for each in objects)


def test_another_image_reaches_the_jobs_pods_too(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    shutil.copytree(MANIFESTS, folder)
    path = folder / "kustomization.yaml"
    kustomization = yaml.safe_load(path.read_text())
    kustomization["images"][0] |= {"newName": "registry.example/hybridjobs", "newTag": "dev"}
    path.write_text(yaml.safe_dump(kustomization))
    operator = named(_kustomize(folder), "Deployment", "hybridjobs-operator")
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: each.get("value") for each in container["env"]}
    assert container["image"] == "registry.example/hybridjobs:dev"
    assert variables["HYBRIDJOBS_WORKER_IMAGE"] == "registry.example/hybridjobs:dev"
    assert variables["HYBRIDJOBS_WORKER_IMAGE_PULL_POLICY"] == "IfNotPresent"
