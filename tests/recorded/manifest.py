"""The recorded API as Kubernetes objects: a pod of our own image that serves it."""

import base64
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import graphql
import yaml

from tests.recorded.paths import DATA, SERVER, require

NAME = "recorded-github"
_FOLDER = "/recorded"
_MAX_CONFIG_MAP_BYTES = 1 << 20
_ARCHIVE = "server.pyz"
_MAIN = "from server.__main__ import main\n\nmain()\n"


def manifest(namespace: str, image: str) -> str:
    """YAML of ConfigMap, Deployment and Service; the API is then at http://recorded-github."""
    data, server = require(DATA).read_bytes(), archive()
    assert len(data) + len(server) < _MAX_CONFIG_MAP_BYTES
    digest = hashlib.sha256(data + server).hexdigest()
    metadata = {
        "name": NAME,
        "namespace": namespace,
        "labels": {"app.kubernetes.io/name": NAME},
    }
    objects: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "binaryData": {
                DATA.name: base64.b64encode(data).decode(),
                _ARCHIVE: base64.b64encode(server).decode(),
            },
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                # Its test switches are state of one process.
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": metadata["labels"]},
                "template": {
                    "metadata": {
                        "labels": metadata["labels"],
                        "annotations": {"hybridjobs.dev/digest": digest},
                    },
                    "spec": _pod(image),
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "selector": metadata["labels"],
                "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
            },
        },
    ]
    text: str = yaml.dump_all(objects, sort_keys=False, Dumper=_Dumper)
    return text


def archive() -> bytes:
    """The server and graphql-core, which our image lacks, as a file that Python runs."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as whole:
        for folder in (SERVER, Path(graphql.__file__).parent):
            for path in sorted(folder.rglob("*.py")):
                # A date of its own would make every archive another one.
                member = zipfile.ZipInfo(str(path.relative_to(folder.parent)))
                member.compress_type = zipfile.ZIP_DEFLATED
                whole.writestr(member, path.read_bytes())
        whole.writestr(zipfile.ZipInfo("__main__.py"), _MAIN)
    return made.getvalue()


def _pod(image: str) -> dict[str, Any]:
    arguments = ["--host", "0.0.0.0", "--port", "8080", "--data", f"{_FOLDER}/{DATA.name}"]
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "server",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["python3", f"{_FOLDER}/{_ARCHIVE}"],
                "args": arguments,
                "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": {
                    "httpGet": {"path": "/_test/health", "port": "http"},
                    "periodSeconds": 1,
                },
                "resources": {
                    # With less, its answers take seconds where jobs run beside it.
                    "requests": {"cpu": "100m", "memory": "64Mi"},
                    "limits": {"memory": "256Mi"},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "recorded", "mountPath": _FOLDER, "readOnly": True}],
            }
        ],
        "volumes": [{"name": "recorded", "configMap": {"name": NAME}}],
    }


class _Dumper(yaml.SafeDumper):
    """Without anchors, and text of several lines as a block."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
