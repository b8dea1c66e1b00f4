"""Kueue for the end-to-end tests: its program and its own chart, both from its Go module."""

import json
from pathlib import Path

from tests.cluster import kind, oci, tools
from tests.cluster.current import choice
from tests.cluster.native.pause import load_program
from tests.cluster.paths import IMAGES
from tests.cluster.shell import lock, run, say

IMAGE = f"kueue:{tools.KUEUE.version}"
_IN_CONTAINERD = f"docker.io/library/{IMAGE}"
_PATH = "/manager"  # where its chart has it begin


def chart() -> Path:
    """Return the folder of Kueue's own Helm chart: its program may be there without its module."""
    module = run("go", "mod", "download", "-json", tools.KUEUE_MODULE, cwd=tools.KUEUE.source)
    return Path(json.loads(module)["Dir"]) / "charts" / "kueue"


def load() -> None:
    """Bring its image into the cluster, after building it; each only when needed."""
    chosen = choice()
    if chosen == "named":
        say(f"KUBECONFIG names a cluster: what needs {IMAGE} is not tested there")
        return
    with lock(IMAGES / "kueue.lock"):
        program = tools.KUEUE.built() / "kueue"
        if chosen == "native":
            load_program(_IN_CONTAINERD, program, _PATH)
        else:
            archive = IMAGES / "kueue.tar"
            oci.write_program(archive, _IN_CONTAINERD, program, _PATH)
            kind.load_archive(archive)
            archive.unlink()
    say(f"{IMAGE} is in the cluster")
