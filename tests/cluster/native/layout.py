"""Addresses, folders and names of the native cluster: one per machine."""

from tests.cluster.paths import NATIVE, RUN

NETNS = "hybridjobs"
NODE = "hybridjobs"
HOST_LINK, NODE_LINK = "hybridjobs-h", "hybridjobs-n"
"""The two ends of the veth pair (15 characters are the limit)."""
HOST_ADDRESS, NODE_ADDRESS, LINK_PREFIX = "10.231.0.1", "10.231.0.2", 30
POD_RANGE, SERVICE_RANGE = "10.232.0.0/16", "10.233.0.0/16"
API_SERVICE_ADDRESS, DNS_ADDRESS = "10.233.0.1", "10.233.0.10"
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
CGROUP = "hybridjobs"

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
