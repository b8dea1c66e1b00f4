"""`make image`: build the one image when its content changed, and bring it into the cluster."""

import hashlib
import json

from tests.cluster import builder, kind, oci
from tests.cluster.current import choice, named
from tests.cluster.native.node import holder
from tests.cluster.native.pause import ctr
from tests.cluster.paths import CHECKOUT, IMAGES
from tests.cluster.shell import ClusterError, lock, run_long, say

NAME = "hybridjobs:dev"
IN_CONTAINERD = f"docker.io/library/{NAME}"
"""What a pod's `image: hybridjobs:dev` means to the kubelet."""
_LAYOUT = IMAGES / "layout"
_BUILT = IMAGES / "built.json"
_SOURCES = (
    ".dockerignore",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "requirements-build.txt",
    "requirements.txt",
)


def content_hash(base: str) -> str:
    """Return a hash over all that the image is made of."""
    digest = hashlib.sha256(base.encode())
    files = [CHECKOUT / name for name in _SOURCES if (CHECKOUT / name).exists()]
    files += (path for path in (CHECKOUT / "operator").rglob("*") if path.is_file())
    for path in sorted(files):
        if "__pycache__" not in path.parts and path.suffix != ".pyc":
            content = path.read_bytes()
            digest.update(f"{path.relative_to(CHECKOUT)} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def make() -> None:
    """Build and load; each only when needed."""
    with lock(IMAGES / "lock"):
        chosen = choice()
        engine = None if chosen == "native" else kind.engine()
        if engine:
            _build_by_engine(engine)
        else:
            _build_natively()
        if chosen == "kind":
            kind.load(NAME)
        elif chosen == "native" and holder():
            _load_natively()
        elif chosen == "native":
            say("no cluster is up: the image is built, and not loaded (make cluster)")
        else:
            say(
                f"KUBECONFIG names {named()}: push {NAME} to a registry that this cluster "
                "reads from, and set the chart's image.repository and image.tag"
            )


def _build_by_engine(engine: str) -> None:
    with builder.pip_secrets() as secrets:
        run_long(
            f"Building {NAME} with {engine}",
            *(engine, "build", "--tag", NAME, *secrets, str(CHECKOUT)),
            env={"DOCKER_BUILDKIT": "1"},
        )


def _build_natively() -> None:
    builder.install_packages()
    wanted = content_hash(builder.base_key())
    if _built().get("content") == wanted and (_LAYOUT / "index.json").exists():
        say(f"{NAME} is up to date")
        return
    _BUILT.unlink(missing_ok=True)  # until the layout is whole again
    builder.build(NAME, _LAYOUT)
    size = oci.prune(_LAYOUT)
    partial = _BUILT.with_name(".built.json")
    partial.write_text(json.dumps({"content": wanted, "digest": oci.image_digest(_LAYOUT)}))
    partial.rename(_BUILT)
    say(f"built {NAME}, {size / 1e6:.0f} MB")


def _built() -> dict[str, str]:
    try:
        content: dict[str, str] = json.loads(_BUILT.read_text())
    except (OSError, ValueError):
        return {}
    return content


def _loaded_digest() -> str:
    lines = ctr("images", "ls", f"name=={IN_CONTAINERD}").splitlines()[1:]
    return lines[0].split()[2] if lines else ""


def _load_natively() -> None:
    wanted = _built()["digest"]
    if _loaded_digest() == wanted:
        say(f"{NAME} is in the cluster already")
        return
    archive = IMAGES / "load.tar"
    there = set(ctr("content", "ls", "--quiet").split())
    for skipped in (there, set[str]()):
        oci.write_difference(_LAYOUT, archive, IN_CONTAINERD, skipped)
        try:
            ctr("images", "import", archive)
        except ClusterError:
            if not skipped:
                raise
            continue  # something that was there is gone: send all of it
        break
    archive.unlink()
    if _loaded_digest() != wanted:
        raise ClusterError(f"containerd did not take {NAME}")
    say(f"loaded {NAME} into the cluster")


def status() -> str:
    """Return a line on the image."""
    built = _built().get("digest", "")
    if not (built and holder()):
        return f"image {NAME}: {'built' if built else 'not built'}"
    loaded = _loaded_digest()
    return f"image {NAME}: " + ("loaded" if loaded == built else "built, not loaded (make image)")
