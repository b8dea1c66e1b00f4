"""Bringing the native cluster up, mending it, and taking it down."""

import hashlib
import os
import shutil
import signal
import socket
import struct
import time
from contextlib import closing
from pathlib import Path

from tests.cluster import tools
from tests.cluster.native import addons, node, pki, processes
from tests.cluster.native.api import Api
from tests.cluster.native.components import Component, all_components
from tests.cluster.native.layout import (
    CONFIG,
    CONTAINERD_SOCKET,
    DNS_ADDRESS,
    DOMAIN,
    KUBECONFIG,
    LOCK,
    NODE,
    NODE_ADDRESS,
)
from tests.cluster.native.pause import load_pause_image, pause_program
from tests.cluster.native.processes import Process
from tests.cluster.paths import NATIVE
from tests.cluster.shell import ClusterError, lock, need, run, say, wait_until

_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "nft": "nftables",
    "ip": "iproute2",
    "openssl": "openssl",
    "gcc": "gcc libc6-dev",
    "nsenter": "util-linux",
    "mount": "mount",
}


def up() -> None:
    """Make the cluster whole, whatever is there: nothing, all, or what a killed run left."""
    if os.geteuid() != 0:
        raise ClusterError("the native cluster needs root (namespaces, mounts, cgroups)")
    with lock(LOCK):
        need(_PACKAGES)
        for family in (tools.CONTROL_PLANE, tools.ETCD, tools.COREDNS):
            family.built()
        pause = pause_program()
        if not (node.is_whole() and KUBECONFIG.exists()):
            if NATIVE.exists() or node.leftovers():
                say("clearing what an earlier cluster left")
                _clear()
            say("making network, mounts and certificates")
            NATIVE.mkdir(parents=True)
            pki.create()
            node.create(pause)
        _start_all()


def _start_all() -> None:
    with closing(Api()) as api:
        _start_with(api)


def _start_with(api: Api) -> None:
    components = all_components()
    ensure(components["etcd"])
    ensure(components["containerd"])
    fresh = ensure(components["api-server"])
    wait_until("containerd answers", _containerd_answers, 90)
    load_pause_image()
    wait_until("API server ready", api.is_ready, 90)
    if fresh:
        say("API server ready")
    for name in ("controller-manager", "scheduler", "kubelet", "kube-proxy", "coredns"):
        ensure(components[name])
    wait_until("namespace kube-system", lambda: bool(api.get("/api/v1/namespaces/kube-system")), 90)
    addons.apply(api)
    wait_until("node Ready", lambda: _node_is_ready(api), 120)
    wait_until("the kubelet knows its pods", lambda: _kubelet_knows_its_pods(api), 60)
    wait_until(
        "default service account",
        lambda: bool(api.get("/api/v1/namespaces/default/serviceaccounts/default")),
        60,
    )
    wait_until("DNS through its Service", _dns_answers, 60)
    say(f"cluster up: node {NODE}, Kubernetes {tools.KUBERNETES}")


def ensure(component: Component) -> bool:
    """Start a component that is dead or has other arguments or files; return if it was started."""
    digest = hashlib.sha256(repr(component).encode()).hexdigest()[:16]
    process = processes.recorded(component.name)
    if process and process.is_alive() and process.argv_digest == digest:
        process.signal(signal.SIGCONT)  # somebody may have paused it
        return False
    if process:
        say(f"starting {component.name} anew")
        process.stop(grace_seconds=5)
    # A killed `up` may have started one that it had no time to record.
    node.end_strays_of(Path(component.argv[0]))
    for name, text in component.files.items():
        (CONFIG / name).parent.mkdir(parents=True, exist_ok=True)
        (CONFIG / name).write_text(text)
    processes.launch(component.name, component.argv, enter=node.entrance(), argv_digest=digest)
    return True


def _containerd_answers() -> bool:
    """Return whether the kubelet would find what it needs: containerd runs on without it, too."""
    try:
        plugins = node.run_inside("ctr", "--address", CONTAINERD_SOCKET, "plugins", "ls")
    except ClusterError:
        return False
    return any(line.split()[1::2] == ["cri", "ok"] for line in plugins.splitlines() if line.strip())


def _node_is_ready(api: Api) -> bool:
    found = api.get(f"/api/v1/nodes/{NODE}")
    if not found:
        return False
    conditions = {item["type"]: item for item in found["status"].get("conditions", [])}
    if conditions.get("Ready", {}).get("status") != "True":
        return False
    # After a kill an old Ready may still stand there.
    return _kubelet_answers()


def _kubelet_knows_its_pods(api: Api) -> bool:
    """Return whether logs and exec work: a kubelet just started knows no pod for a while."""
    wanted = api.get(f"/api/v1/pods?fieldSelector=spec.nodeName={NODE}")
    known = api.get(f"/api/v1/nodes/{NODE}/proxy/pods")
    if wanted is None or known is None:
        return False
    names = {item["metadata"]["uid"] for item in known.get("items") or []}
    return names >= {item["metadata"]["uid"] for item in wanted["items"]}


def _kubelet_answers() -> bool:
    process = processes.recorded("kubelet")
    if not (process and process.is_alive()):
        raise ClusterError(f"the kubelet ended: see {NATIVE}/logs/kubelet.log")
    try:
        with socket.create_connection((NODE_ADDRESS, 10250), timeout=1):
            return True
    except OSError:
        return False


def _dns_answers() -> bool:
    """Ask for kubernetes.default as a pod does, by the Service's address."""
    labels = f"kubernetes.default.svc.{DOMAIN}".split(".")
    name = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
    query = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)
        try:
            client.sendto(query, (DNS_ADDRESS, 53))
            answer = client.recv(512)
        except OSError:
            return False
    return len(answer) > 12 and struct.unpack(">H", answer[6:8])[0] >= 1


def down() -> None:
    """Take everything away; images and built programs stay in their caches."""
    with lock(LOCK):
        if not node.leftovers():
            say("no native cluster is here")
            return
        if os.geteuid() != 0:
            raise ClusterError("taking the native cluster down needs root")
        _clear()
        if left := node.leftovers():
            raise ClusterError("left behind: " + "; ".join(left))
        say("native cluster gone: no process, mount, network or cgroup of it is left")


def _clear() -> None:
    node.remove()
    if NATIVE.exists():
        shutil.rmtree(NATIVE)


def stop_component(name: str, *, pause: bool = False) -> None:
    """Kill a program of the cluster, or with `pause` freeze it: connections open, no answers."""
    process = processes.recorded(name)
    if process is None:
        raise ClusterError("the native cluster is not up (make cluster)")
    if pause:
        process.signal(signal.SIGSTOP)
    else:
        process.stop(grace_seconds=0)


def start_component(name: str) -> None:
    """Start or wake it, and return when it answers (API server, containerd, kubelet)."""
    ensure(all_components()[name])
    if name == "api-server":
        with closing(Api()) as api:
            wait_until("API server ready", api.is_ready, 90)
    elif name == "containerd":
        wait_until("containerd answers", _containerd_answers, 90)
    elif name == "kubelet":
        wait_until("the kubelet answers", _kubelet_answers, 60)


def status() -> str:
    """Return one screen: versions, node, and each process with its memory."""
    lines = [f"native cluster in {NATIVE}"]
    holder = node.holder()
    if holder is None:
        return "\n".join([*lines, *(f"left behind: {item}" for item in node.leftovers())])
    names = ("node", *all_components())
    lines += [f"  {name:20}{_describe(processes.recorded(name))}" for name in names]
    if KUBECONFIG.exists():
        kubectl = tools.CONTROL_PLANE.folder / "bin" / "kubectl"
        try:
            lines.append(
                run(kubectl, f"--kubeconfig={KUBECONFIG}", "get", "nodes", "--request-timeout=5s")
            )
        except ClusterError as error:
            lines.append(f"the API server does not answer: {error}")
    return "\n".join(lines)


def _describe(process: Process | None) -> str:
    if process is None:
        return "never started"
    if not process.is_alive():
        return f"DEAD (was pid {process.pid})"
    fields = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if ":" in line
    )
    memory = int(fields["VmRSS"].split()[0]) // 1024
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - process.started / os.sysconf("SC_CLK_TCK")
    return f"pid {process.pid:<8}{memory:5} MiB  {age:6.0f} s  {fields['State'].strip()}"
