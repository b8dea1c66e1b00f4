"""Addresses, folders and names of the native cluster; each cache folder may have one."""

from tests.cluster.paths import INSTANCE, NATIVE, RUN

NAME = f"hybridjobs{INSTANCE or ''}"
NETNS = NAME
NODE = NAME
HOST_LINK, NODE_LINK = f"{NAME}-h", f"{NAME}-n"
"""The two ends of the veth pair (15 characters are the limit)."""
_LINK, _PODS, _SERVICES = (f"10.{231 + 3 * INSTANCE + part}" for part in range(3))
HOST_ADDRESS, NODE_ADDRESS, LINK_PREFIX = f"{_LINK}.0.1", f"{_LINK}.0.2", 30
POD_RANGE, SERVICE_RANGE = f"{_PODS}.0.0/16", f"{_SERVICES}.0.0/16"
API_SERVICE_ADDRESS, DNS_ADDRESS = f"{_SERVICES}.0.1", f"{_SERVICES}.0.10"
ROUTED = (f"{_LINK}.", f"{_PODS}.", f"{_SERVICES}.")
"""How every address of ours begins."""
DOMAIN = "cluster.local"
API_URL = f"https://{NODE_ADDRESS}:6443"

PKI = NATIVE / "pki"
CONFIG = NATIVE / "config"
LOGS = NATIVE / "logs"
ETCD = NATIVE / "etcd"
CONTAINERD = NATIVE / "containerd"
KUBECONFIG = NATIVE / "kubeconfig"
LOCK = NATIVE.parent / "native.lock"
RECORDS = RUN / "processes"
MADE_FOLDERS = RUN / "made-folders"

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CGROUP = NAME

VOLUMES = NATIVE / "volumes"
VOLUMES_IN_NODE = "/tmp/hybridjobs-volumes"
"""The controller manager deletes the folder of a hostPath volume only below /tmp."""

BINDS = {
    "/run/containerd": RUN / "containerd",
    "/run/netns": RUN / "netns",
    "/tmp/hybridjobs-volumes": VOLUMES,
    "/var/lib/cni": NATIVE / "cni",
    "/var/lib/kubelet": NATIVE / "kubelet",
    "/var/log/containers": NATIVE / "container-logs",
    "/var/log/pods": NATIVE / "pod-logs",
}
"""Paths that the programs insist on (keys), ours in the cluster's mount namespace only."""

KERNEL_SETTINGS = {
    "kernel/keys/root_maxbytes": "25000000",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
}
"""What the kubelet wants to find below /proc/sys, and would else set for the whole machine."""
