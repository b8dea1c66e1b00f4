"""What a cluster has beside its programs: DNS as a Service, and volumes to claim."""

from typing import Any

from tests.cluster.native.api import Api
from tests.cluster.native.layout import DNS_ADDRESS, NODE_ADDRESS, VOLUMES, VOLUMES_IN_NODE

_VOLUMES = 48
"""Each serves one claim; what a deleted claim used up, the next `up` makes anew."""


def apply(api: Api) -> None:
    """Create what is missing."""
    for path, body in _dns() + _storage_class():
        api.apply(path, body)
    _make_volumes(api)


def _dns() -> list[tuple[str, dict[str, Any]]]:
    """CoreDNS runs beside the kubelet, so its Service has no selector."""
    rbac, system = "/apis/rbac.authorization.k8s.io/v1", "/namespaces/kube-system"
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}]
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "system:coredns"},
        "rules": [
            {
                "apiGroups": [""],
                "resources": ["services", "pods", "namespaces"],
                "verbs": ["list", "watch"],
            },
            {
                "apiGroups": ["discovery.k8s.io"],
                "resources": ["endpointslices"],
                "verbs": ["list", "watch"],
            },
        ],
    }
    group = "rbac.authorization.k8s.io"
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "system:coredns"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "system:coredns"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "system:coredns"}],
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "labels": {"k8s-app": "kube-dns"}},
        "spec": {"clusterIP": DNS_ADDRESS, "ports": [{"protocol": "TCP", **p} for p in ports]},
    }
    slices = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns", "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
        "ports": [{"protocol": "TCP", **port} for port in ports],
    }
    return [
        (f"{rbac}/clusterroles/system:coredns", role),
        (f"{rbac}/clusterrolebindings/system:coredns", binding),
        (f"/api/v1{system}/services/kube-dns", service),
        (f"/apis/discovery.k8s.io/v1{system}/endpointslices/kube-dns", slices),
    ]


def _storage_class() -> list[tuple[str, dict[str, Any]]]:
    body = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "standard",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "Immediate",
    }
    return [("/apis/storage.k8s.io/v1/storageclasses/standard", body)]


def _make_volumes(api: Api) -> None:
    """Prepare folders that any user may write to: hostPath volumes know no fsGroup.

    The controller manager could provision them, but with mode 0750, of no use to a pod that
    is not root.
    """
    found = api.get("/api/v1/persistentvolumes")
    there = {item["metadata"]["name"] for item in found["items"]} if found else set()
    for number in range(_VOLUMES):
        name = f"standard-{number:02}"
        if name in there:
            continue
        folder = VOLUMES / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        api.apply(
            f"/api/v1/persistentvolumes/{name}",
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": name},
                "spec": {
                    "storageClassName": "standard",
                    "capacity": {"storage": "100Gi"},
                    "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
                    "persistentVolumeReclaimPolicy": "Delete",
                    "hostPath": {"path": f"{VOLUMES_IN_NODE}/{name}"},
                },
            },
        )
