"""Nodes that are not there: kwok plays their kubelets, and its pods run until they are deleted."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from hybridjobs.kube.client import AlreadyExists, Kubernetes, Resource
from tests.cluster import Cluster, tools

NODES = Resource("", "v1", "nodes", namespaced=False)
_LABEL = "bench.hybridjobs.dev/node"
_TAINT = {"key": _LABEL, "value": "kwok", "effect": "NoSchedule"}
POD_TEMPLATE = {
    "nodeSelector": {_LABEL: "kwok"},
    "tolerations": [{"key": _LABEL, "operator": "Exists"}],
    "serviceAccountName": "default",
}
"""For a HybridJobType whose pods go to these nodes, and to no real one."""
_PODS_A_NODE = 1000
_NOT_READY = {
    "key": '.status.conditions.[] | select( .type == "Ready" ) | .status',
    "operator": "NotIn",
    "values": ["True"],
}
_ALIVE = {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"}


def _stage(
    name: str, kind: str, expressions: list[dict[str, Any]], then: dict[str, Any]
) -> dict[str, Any]:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": expressions},
            "next": then,
        },
    }


_STAGES = (
    _stage(
        "node-ready",
        "Node",
        [_NOT_READY],
        {
            "statusTemplate": """
{{ $now := Now }}
conditions:
{{ range NodeConditions }}
- lastHeartbeatTime: {{ $now | Quote }}
  lastTransitionTime: {{ $now | Quote }}
  message: {{ .message | Quote }}
  reason: {{ .reason | Quote }}
  status: {{ .status | Quote }}
  type: {{ .type | Quote }}
{{ end }}
phase: Running
"""
        },
    ),
    _stage(
        "pod-runs",
        "Pod",
        [_ALIVE, {"key": ".status.phase", "operator": "In", "values": ["Pending"]}],
        {
            "statusTemplate": """
{{ $now := Now }}
conditions:
- {type: PodReadyToStartContainers, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: Initialized, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: Ready, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: ContainersReady, status: "True", lastTransitionTime: {{ $now | Quote }}}
containerStatuses:
{{ range .spec.containers }}
- image: {{ .image | Quote }}
  name: {{ .name | Quote }}
  ready: true
  restartCount: 0
  state:
    running:
      startedAt: {{ $now | Quote }}
{{ end }}
phase: Running
startTime: {{ $now | Quote }}
"""
        },
    ),
    _stage(
        "pod-deleted",
        "Pod",
        [{"key": ".metadata.deletionTimestamp", "operator": "Exists"}],
        {"delete": True},
    ),
)


@asynccontextmanager
async def fake_nodes(
    cluster: Cluster, kubernetes: Kubernetes, folder: Path, *, pods: int
) -> AsyncIterator[None]:
    """Room for so many pods, for as long as this lasts."""
    config = folder / "kwok.json"
    # YAML documents, of which JSON is one kind.
    config.write_text("\n---\n".join(json.dumps(stage) for stage in _STAGES))
    names = [f"bench-kwok-{number}" for number in range(-(-pods // _PODS_A_NODE))]
    for name in names:
        await _add(kubernetes, name)
    with (folder / "kwok.log").open("w") as log:
        kwok = await asyncio.create_subprocess_exec(
            tools.KWOK.built() / "kwok",
            f"--kubeconfig={cluster.kubeconfig}",
            f"--config={config}",
            f"--manage-nodes-with-label-selector={_LABEL}=kwok",
            "--node-lease-duration-seconds=40",
            stdout=log,
            stderr=asyncio.subprocess.STDOUT,
        )
    try:
        yield
    finally:
        for name in names:
            uid = (await kubernetes.get(NODES, None, name))["metadata"]["uid"]
            await kubernetes.delete(NODES, None, name, uid=uid)
        kwok.terminate()
        await kwok.wait()


async def _add(kubernetes: Kubernetes, name: str) -> None:
    room = {"cpu": "1k", "memory": "1Ti", "pods": str(_PODS_A_NODE)}
    body = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {_LABEL: "kwok", "kubernetes.io/hostname": name}},
        "spec": {"taints": [_TAINT]},
        "status": {"allocatable": room, "capacity": room},
    }
    with suppress(AlreadyExists):
        await kubernetes.create(NODES, None, body)
