"""The pause program: process 1 of the node's namespaces, and the image of every pod's sandbox."""

import hashlib
from pathlib import Path

from tests.cluster import oci
from tests.cluster.native import node
from tests.cluster.native.components import PAUSE_IMAGE
from tests.cluster.native.layout import CONTAINERD_SOCKET
from tests.cluster.paths import NATIVE, TOOLS
from tests.cluster.shell import run

_SOURCE = Path(__file__).with_name("pause.c")


def pause_program() -> Path:
    """Return the static program, after compiling it when it is not cached."""
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]
    program = TOOLS / f"pause-{digest}" / "bin" / "pause"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        partial = program.with_name(".pause")
        run("gcc", "-Os", "-static", "-s", "-Wall", "-Wextra", "-o", partial, _SOURCE)
        partial.rename(program)
    return program


def ctr(*argv: str | Path) -> str:
    """Return what containerd's client prints, in the namespace that the kubelet uses."""
    return node.run_inside("ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", *argv)


def load_program(name: str, program: Path, path: str) -> None:
    """Import an image of the program alone, which is run at `path`, unless containerd has it."""
    if ctr("images", "ls", "-q", f"name=={name}").strip():
        return
    archive = NATIVE / f"{program.name}.tar"
    oci.write_program(archive, name, program, path)
    ctr("images", "import", archive)
    archive.unlink()


def load_pause_image() -> None:
    """Import the sandbox image, unless containerd has it."""
    load_program(PAUSE_IMAGE, pause_program(), "/pause")
