"""kubectl, helm and other programs, built from Go modules once per version.

A family is one Go module under tools/: families' dependencies clash in one module. A build goes
into a folder beside its final place and is renamed when complete, so what is found is whole.
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.paths import BIN, TOOLS
from tests.cluster.shell import ClusterError, lock, run, run_long, say

_SOURCES = Path(__file__).parent / "tools"
_K8S = "k8s.io/kubernetes/cmd"
_VERSION_PACKAGE = "k8s.io/component-base/version"
KUBERNETES = "1.35.4"
"""The newest minor that talks to Debian 12's containerd 1.6."""


@dataclass(frozen=True)
class Family:
    """Programs (name to Go package) that one module builds."""

    name: str
    module: str
    version: str
    programs: dict[str, str]
    takes: str
    link_flags: str = ""

    @property
    def source(self) -> Path:
        """Return the folder of its Go module."""
        return _SOURCES / self.module

    @property
    def folder(self) -> Path:
        """Return the cache folder, named by all that goes into the build."""
        digest = hashlib.sha256(repr((self.programs, self.link_flags)).encode())
        for source in sorted(self.source.glob("*.*")):
            digest.update(source.read_bytes())
        return TOOLS / f"{self.name}-{self.version}-{digest.hexdigest()[:12]}"

    def is_complete(self) -> bool:
        """Return whether every program is there in the size it was built with."""
        try:
            sizes = json.loads((self.folder / "sizes.json").read_text())
            return all(
                (self.folder / "bin" / name).stat().st_size == sizes[name] > 0
                for name in self.programs
            )
        except (OSError, ValueError, KeyError):
            return False

    def built(self) -> Path:
        """Return the folder of the programs, after building them when they are not cached."""
        with lock(TOOLS / f"{self.name}.lock"):
            if not self.is_complete():
                self._build()
        return self.folder / "bin"

    def _build(self) -> None:
        if not shutil.which("go"):
            raise ClusterError(f"Go 1.25 or newer is needed on PATH to build {self.name}")
        partial = TOOLS / f".{self.name}.partial"
        for leftover in (partial, self.folder):
            shutil.rmtree(leftover, ignore_errors=True)
        (partial / "bin").mkdir(parents=True)
        # Each program alone: a package's last element need not be the program's name.
        for name, package in self.programs.items():
            run_long(
                f"Building {name} {self.version} ({self.takes} with cold caches)",
                *("go", "build", "-trimpath", "-ldflags", f"-s -w {self.link_flags}"),
                *("-o", partial / "bin" / name, package),
                cwd=self.source,
                env={"CGO_ENABLED": "0"},
            )
        sizes = {name: (partial / "bin" / name).stat().st_size for name in self.programs}
        (partial / "sizes.json").write_text(json.dumps(sizes))
        os.sync()
        partial.rename(self.folder)


def _kubernetes(name: str, takes: str, *programs: str) -> Family:
    major, minor, _ = KUBERNETES.split(".")
    flags = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor}
    return Family(
        name=name,
        module="kubernetes",
        version=KUBERNETES,
        programs={program: f"{_K8S}/{program}" for program in programs},
        takes=takes,
        # Without it clients see v0.0.0, and helm's kubeVersion checks fail.
        link_flags=" ".join(f"-X {_VERSION_PACKAGE}.{key}={flags[key]}" for key in flags),
    )


CONTROL_PLANE = _kubernetes(
    "kubernetes",
    "all six together about 9 min",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)
KUBECTL = _kubernetes("kubectl", "about 1 min", "kubectl")
ETCD = Family(
    name="etcd",
    module="etcd",
    version="3.6.16",
    programs={"etcd": "go.etcd.io/etcd/server/v3"},
    takes="about 40 s",
)
COREDNS = Family(
    name="coredns",
    module="coredns",
    version="1.14.7",
    programs={"coredns": "."},
    takes="about 1 min",
)
HELM = Family(
    name="helm",
    module="helm",
    version="3.21.4",
    programs={"helm": "helm.sh/helm/v3/cmd/helm"},
    takes="about 2 min",
    # Without the latter two `helm template` and `helm lint` speak for Kubernetes 1.20.
    link_flags=" ".join(
        (
            "-X helm.sh/helm/v3/internal/version.version=v3.21.4",
            *(
                f"-X helm.sh/helm/v3/pkg/{package}.k8sVersion{part}={number}"
                for package in ("chartutil", "lint/rules")
                for part, number in zip(("Major", "Minor"), KUBERNETES.split("."), strict=False)
            ),
        )
    ),
)
KWOK = Family(
    name="kwok",
    module="helm",
    version="0.8.0",
    programs={"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
    takes="about 1 min",
)
KUEUE_MODULE = "sigs.k8s.io/kueue"
KUEUE = Family(
    name="kueue",
    module="kueue",
    version="0.17.0",
    programs={"kueue": f"{KUEUE_MODULE}/cmd/kueue"},
    takes="about 4 min",
)
PROMETHEUS = Family(
    name="prometheus",
    module="prometheus",
    version="0.316.0",
    programs={"promtool": "github.com/prometheus/prometheus/cmd/promtool"},
    takes="about 3 min",
)
KIND = Family(
    name="kind",
    module="kind",
    version="0.33.0",
    programs={"kind": "sigs.k8s.io/kind"},
    takes="about 1 min",
)


def _on_path(name: str, *version_arguments: str) -> tuple[Path, int, int] | None:
    """Return the program on PATH with its major and minor version, our own links aside."""
    path = os.pathsep.join(
        part for part in os.environ.get("PATH", "").split(os.pathsep) if part != str(BIN)
    )
    if found := shutil.which(name, path=path):
        try:
            version = re.search(r"v(\d+)\.(\d+)\.", run(found, *version_arguments))
        except (ClusterError, OSError):
            return None
        if version:
            return Path(found), int(version[1]), int(version[2])
    return None


def kubectl(server_minor: int = int(KUBERNETES.split(".")[1])) -> Path:
    """Return a kubectl at most one minor away from the server: PATH's, else one we build."""
    if CONTROL_PLANE.is_complete():
        ours = CONTROL_PLANE.folder / "bin" / "kubectl"
    elif KUBECTL.is_complete():
        ours = KUBECTL.folder / "bin" / "kubectl"
    else:
        ours = None
    found = _on_path("kubectl", "version", "--client")
    if found and found[1] == 1 and abs(found[2] - server_minor) <= 1:
        return _linked("kubectl", found[0])
    return _linked("kubectl", ours or KUBECTL.built() / "kubectl")


def helm() -> Path:
    """Return a helm of version 3.17 or newer: PATH's, else one we build."""
    found = _on_path("helm", "version", "--short")
    if found and (found[1], found[2]) >= (3, 17):
        return _linked("helm", found[0])
    return _linked("helm", HELM.built() / "helm")


def _linked(name: str, program: Path) -> Path:
    """Point the stable link at the program; a rename, so that no reader sees it missing."""
    link = BIN / name
    if not (link.is_symlink() and link.readlink() == program):
        BIN.mkdir(parents=True, exist_ok=True)
        fresh = BIN / f".{name}.{os.getpid()}"
        fresh.symlink_to(program)
        fresh.rename(link)
        say(f"{name}: {program}")
    return link
