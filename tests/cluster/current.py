"""Which cluster tests, demo and images go to: the same answer for all of them."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.cluster import kind, native, tools
from tests.cluster.native.layout import HOST_ADDRESS
from tests.cluster.native.layout import KUBECONFIG as NATIVE_KUBECONFIG
from tests.cluster.native.node import holder
from tests.cluster.shell import ClusterError

Kind = Literal["named", "kind", "native"]


@dataclass(frozen=True)
class Cluster:
    """A cluster that is there, and the programs to talk to it with."""

    kind: Kind
    kubeconfig: Path
    kubectl: Path
    helm: Path

    @property
    def host_address(self) -> str:
        """Return the address by which pods reach a server that a test runs on this machine."""
        if self.kind == "native":
            return HOST_ADDRESS
        if self.kind == "kind":
            return kind.host_address()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # sends nothing: asks for the way out
            return str(probe.getsockname()[0])

    @property
    def environment(self) -> dict[str, str]:
        """Return os.environ with KUBECONFIG, and PATH led by our kubectl and helm."""
        path = f"{self.kubectl.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}

    @property
    def can_stop_api_server(self) -> bool:
        """Return whether what follows works (native only)."""
        return self.kind == "native"

    def stop_api_server(self, *, pause: bool = False) -> None:
        """Kill the API server, or freeze it: connections stay open and nothing answers."""
        self.stop_component("api-server", pause=pause)

    def start_api_server(self) -> None:
        """Start the API server again, and return when it is ready."""
        self.start_component("api-server")

    def stop_component(self, name: str, *, pause: bool = False) -> None:
        """Kill or freeze a program of the native cluster, such as kubelet or containerd."""
        self._must_be_native()
        native.stop_component(name, pause=pause)

    def start_component(self, name: str) -> None:
        """Start or wake it."""
        self._must_be_native()
        native.start_component(name)

    def mend(self) -> None:
        """Start whatever of the native cluster is dead; others have supervisors for that."""
        if self.kind == "native":
            native.up()

    def _must_be_native(self) -> None:
        if self.kind != "native":
            raise ClusterError("only the native cluster's programs can be stopped")


def named() -> Path | None:
    """Return the kubeconfig that the user names by KUBECONFIG, unless it is one of ours."""
    value = os.environ.get("KUBECONFIG", "")
    if not value:
        return None
    path = Path(value.split(os.pathsep)[0]).expanduser().absolute()
    return None if path in (NATIVE_KUBECONFIG, kind.KUBECONFIG) else path


def choice() -> Kind:
    """Return the kind of cluster that `up` makes or uses on this machine.

    HYBRIDJOBS_CLUSTER=kind or =native decides where both could be.
    """
    if named():
        return "named"
    wanted = os.environ.get("HYBRIDJOBS_CLUSTER", "")
    if wanted == "native" or holder():
        return "native"
    if wanted == "kind" or kind.engine():
        return "kind"
    return "native"


def current() -> Cluster:
    """Return the cluster in use; raise ClusterError when there is none yet."""
    chosen = choice()
    if chosen == "native":
        if not (holder() and NATIVE_KUBECONFIG.exists()):
            raise ClusterError("there is no cluster: make cluster")
        kubeconfig = NATIVE_KUBECONFIG
    elif chosen == "kind":
        if not kind.is_up():
            raise ClusterError("there is no cluster: make cluster")
        kubeconfig = kind.KUBECONFIG
    else:
        kubeconfig = named() or Path()
        if not kubeconfig.exists():
            raise ClusterError(f"KUBECONFIG names {kubeconfig}, which does not exist")
    return Cluster(chosen, kubeconfig, tools.kubectl(), tools.helm())
