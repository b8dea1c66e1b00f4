"""What runs on the node: each program's command line and configuration, as values."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import tools
from tests.cluster.native.layout import (
    CGROUP,
    CONFIG,
    CONTAINERD,
    CONTAINERD_SOCKET,
    DNS_ADDRESS,
    DOMAIN,
    ETCD,
    LOGS,
    NODE,
    NODE_ADDRESS,
    PKI,
    POD_RANGE,
    SERVICE_RANGE,
)

PAUSE_IMAGE = "localhost/hybridjobs-pause:1"
_CNI_PLUGINS = "/usr/lib/cni"
AUDIT_LOG = LOGS / "audit.log"
"""A line of JSON for each write that the API server has answered: who, what, when."""
_QPS, _BURST = 500, 1000
"""Client limits far above what two cores can do, so that a benchmark measures something else."""


@dataclass(frozen=True)
class Component:
    """A program, its arguments, and the configuration files it reads (name to text)."""

    name: str
    argv: tuple[str, ...]
    files: dict[str, str]


def _flags(**values: object) -> tuple[str, ...]:
    return tuple(f"--{name.replace('_', '-')}={value}" for name, value in values.items())


def _pki(name: str) -> str:
    return str(PKI / name)


def _config(name: str) -> str:
    return str(CONFIG / name)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def all_components() -> dict[str, Component]:
    """Return the components by name, in the order in which they start."""
    kubernetes = tools.CONTROL_PLANE.folder / "bin"
    made = (
        _etcd(tools.ETCD.folder / "bin" / "etcd"),
        _containerd(),
        _api_server(kubernetes / "kube-apiserver"),
        _controller_manager(kubernetes / "kube-controller-manager"),
        _scheduler(kubernetes / "kube-scheduler"),
        _kubelet(kubernetes / "kubelet"),
        _kube_proxy(kubernetes / "kube-proxy"),
        _coredns(tools.COREDNS.folder / "bin" / "coredns"),
    )
    return {component.name: component for component in made}


def _etcd(program: Path) -> Component:
    flags = _flags(
        data_dir=ETCD,
        listen_client_urls="http://127.0.0.1:2379",
        advertise_client_urls="http://127.0.0.1:2379",
        listen_peer_urls="http://127.0.0.1:2380",
        quota_backend_bytes=8 << 30,
        log_level="warn",
    )
    # Loses data when the machine fails, not when a process does: the cluster is a test's.
    return Component("etcd", (str(program), *flags, "--unsafe-no-fsync"), {})


def _containerd() -> Component:
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    config = f"""version = 2
root = "{CONTAINERD}"
state = "/run/containerd/state"

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
path = "{CONTAINERD}/opt"

[{cri}]
sandbox_image = "{PAUSE_IMAGE}"
# Where root lacks CAP_SYS_RESOURCE a lower score cannot be set, and every sandbox would die.
restrict_oom_score_adj = true

[{cri}.cni]
bin_dir = "{_CNI_PLUGINS}"
conf_dir = "{CONFIG}/cni"

[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[{cri}.containerd.runtimes.runc.options]
SystemdCgroup = false
"""
    # ptp, not bridge: all pod traffic is routed, so replies from a pod on the same node pass
    # conntrack without br_netfilter. No masquerading: the host has a route to the pods.
    network = {
        "cniVersion": "0.4.0",
        "name": "hybridjobs",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": POD_RANGE}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
    return Component(
        "containerd",
        ("/usr/bin/containerd", "--config", _config("containerd.toml")),
        {"containerd.toml": config, "cni/10-hybridjobs.conflist": _json(network)},
    )


def _api_server(program: Path) -> Component:
    audit = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {
                "level": "None",
                "resources": [
                    {"group": "coordination.k8s.io"},
                    {"group": "authentication.k8s.io"},
                    {"group": "authorization.k8s.io"},
                ],
            },
            {
                "level": "Metadata",
                "verbs": ["create", "update", "patch", "delete", "deletecollection"],
            },
            {"level": "None"},
        ],
    }
    flags = _flags(
        advertise_address=NODE_ADDRESS,
        allow_privileged="true",
        authorization_mode="Node,RBAC",
        enable_admission_plugins="NodeRestriction",
        etcd_servers="http://127.0.0.1:2379",
        service_cluster_ip_range=SERVICE_RANGE,
        client_ca_file=_pki("ca.crt"),
        tls_cert_file=_pki("api-server.crt"),
        tls_private_key_file=_pki("api-server.key"),
        kubelet_certificate_authority=_pki("ca.crt"),
        kubelet_client_certificate=_pki("api-server-kubelet.crt"),
        kubelet_client_key=_pki("api-server-kubelet.key"),
        kubelet_preferred_address_types="InternalIP",
        service_account_issuer=f"https://kubernetes.default.svc.{DOMAIN}",
        service_account_key_file=_pki("service-accounts.pub"),
        service_account_signing_key_file=_pki("service-accounts.key"),
        requestheader_client_ca_file=_pki("front-proxy-ca.crt"),
        requestheader_allowed_names="front-proxy-client",
        requestheader_extra_headers_prefix="X-Remote-Extra-",
        requestheader_group_headers="X-Remote-Group",
        requestheader_username_headers="X-Remote-User",
        proxy_client_cert_file=_pki("front-proxy.crt"),
        proxy_client_key_file=_pki("front-proxy.key"),
        audit_policy_file=_config("audit.json"),
        audit_log_path=AUDIT_LOG,
        audit_log_maxsize=100,
        audit_log_maxbackup=1,
    )
    return Component("api-server", (str(program), *flags), {"audit.json": _json(audit)})


def _controller_manager(program: Path) -> Component:
    kubeconfig = _pki("controller-manager.kubeconfig")
    flags = _flags(
        kubeconfig=kubeconfig,
        authentication_kubeconfig=kubeconfig,
        authorization_kubeconfig=kubeconfig,
        bind_address="127.0.0.1",
        leader_elect="false",
        use_service_account_credentials="true",
        client_ca_file=_pki("ca.crt"),
        root_ca_file=_pki("ca.crt"),
        cluster_signing_cert_file=_pki("ca.crt"),
        cluster_signing_key_file=_pki("ca.key"),
        requestheader_client_ca_file=_pki("front-proxy-ca.crt"),
        service_account_private_key_file=_pki("service-accounts.key"),
        flex_volume_plugin_dir="/var/lib/kubelet/volume-plugins",
        kube_api_qps=_QPS,
        kube_api_burst=_BURST,
        concurrent_job_syncs=20,
    )
    return Component("controller-manager", (str(program), *flags), {})


def _scheduler(program: Path) -> Component:
    kubeconfig = _pki("scheduler.kubeconfig")
    config = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig, "qps": _QPS, "burst": _BURST},
        "leaderElection": {"leaderElect": False},
    }
    flags = _flags(
        config=_config("scheduler.json"),
        authentication_kubeconfig=kubeconfig,
        authorization_kubeconfig=kubeconfig,
        client_ca_file=_pki("ca.crt"),
        requestheader_client_ca_file=_pki("front-proxy-ca.crt"),
        bind_address="127.0.0.1",
    )
    return Component("scheduler", (str(program), *flags), {"scheduler.json": _json(config)})


def _kubelet(program: Path) -> Component:
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": _pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": _pki("kubelet-server.crt"),
        "tlsPrivateKeyFile": _pki("kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": DOMAIN,
        "resolvConf": "",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "oomScoreAdj": 0,
        "maxPods": 250,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        # Imported images have no registry to come back from.
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": False,
        "makeIPTablesUtilChains": False,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "kubeAPIQPS": _QPS,
        "kubeAPIBurst": _BURST,
        "eventRecordQPS": _QPS,
        "eventBurst": _BURST,
    }
    flags = _flags(
        config=_config("kubelet.json"),
        kubeconfig=_pki("kubelet.kubeconfig"),
        hostname_override=NODE,
        node_ip=NODE_ADDRESS,
    )
    return Component("kubelet", (str(program), *flags), {"kubelet.json": _json(config)})


def _kube_proxy(program: Path) -> Component:
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": _pki("kube-proxy.kubeconfig")},
        "mode": "nftables",
        "clusterCIDR": POD_RANGE,
        "hostnameOverride": NODE,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": 0,
        # 0: leave the kernel's conntrack settings alone.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }
    flags = _flags(config=_config("kube-proxy.json"))
    return Component("kube-proxy", (str(program), *flags), {"kube-proxy.json": _json(config)})


def _coredns(program: Path) -> Component:
    # Names outside the cluster get NXDOMAIN at once: pods have no way out of the machine.
    config = f""".:53 {{
    ready 127.0.0.1:8181
    errors
    cache 5
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {_pki("coredns.kubeconfig")}
        ttl 5
    }}
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
"""
    return Component("coredns", (str(program), "-conf", _config("Corefile")), {"Corefile": config})
