"""`make image`: build an image when its content changed, and bring it into the cluster."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import builder, kind, oci
from tests.cluster.current import choice, named
from tests.cluster.native.node import holder
from tests.cluster.native.pause import ctr
from tests.cluster.paths import CHECKOUT, IMAGES
from tests.cluster.shell import ClusterError, lock, run_long, say


@dataclass(frozen=True)
class Image:
    """An image of a folder with a Dockerfile; `sources` are all the files and folders it takes.

    Without a container engine its base is Debian with the `packages`.
    """

    name: str
    folder: Path
    sources: tuple[str, ...]
    packages: tuple[str, ...]

    @property
    def in_containerd(self) -> str:
        """What a pod's `image: NAME` means to the kubelet."""
        return f"docker.io/library/{self.name}"

    @property
    def layout(self) -> Path:
        """The folder of the built image."""
        return IMAGES / self.name.partition(":")[0]

    @property
    def record(self) -> Path:
        """The file that says of what it was built."""
        return self.layout.with_suffix(".json")

    def content_hash(self) -> str:
        """Return a hash over all that the image is made of."""
        digest = hashlib.sha256(builder.base_key(self.packages).encode())
        for path in sorted(self._files()):
            if "__pycache__" not in path.parts and path.suffix != ".pyc":
                content = path.read_bytes()
                digest.update(f"{path.relative_to(self.folder)} {len(content)}\n".encode())
                digest.update(content)
        return digest.hexdigest()

    def _files(self) -> Iterable[Path]:
        for name in self.sources:
            path = self.folder / name
            if path.is_dir():
                yield from (each for each in path.rglob("*") if each.is_file())
            elif path.exists():
                yield path


HYBRIDJOBS = Image(
    "hybridjobs:dev",
    CHECKOUT,
    (
        ".dockerignore",
        "Dockerfile",
        "LICENSE",
        "README.md",
        "operator",
        "pyproject.toml",
        "requirements-build.txt",
        "requirements.txt",
    ),
    builder.PYTHON,
)
SHELL_EXAMPLE = Image(
    "count-issues:dev",
    CHECKOUT / "examples" / "shell",
    ("Dockerfile", "handler.sh"),
    builder.SHELL,
)


def make(image: Image = HYBRIDJOBS) -> None:
    """Build and load; each only when needed."""
    with lock(IMAGES / "lock"):
        chosen = choice()
        engine = None if chosen == "native" else kind.engine()
        if engine:
            _build_by_engine(image, engine)
        else:
            _build_natively(image)
        if chosen == "kind":
            kind.load(image.name)
        elif chosen == "native" and holder():
            _load_natively(image)
        elif chosen == "native":
            say("no cluster is up: the image is built, and not loaded (make cluster)")
        else:
            say(
                f"KUBECONFIG names {named()}: push {image.name} to a registry that this cluster "
                "reads from, and set the chart's image.repository and image.tag"
            )


def _build_by_engine(image: Image, engine: str) -> None:
    with builder.pip_secrets() as secrets:
        run_long(
            f"Building {image.name} with {engine}",
            *(engine, "build", "--tag", image.name, *secrets, str(image.folder)),
            env={"DOCKER_BUILDKIT": "1"},
        )


def _build_natively(image: Image) -> None:
    builder.install_packages()
    wanted, record = image.content_hash(), image.record
    if _built(image).get("content") == wanted and (image.layout / "index.json").exists():
        say(f"{image.name} is up to date")
        return
    record.unlink(missing_ok=True)  # until the layout is whole again
    builder.build(image.name, image.folder, image.packages, image.layout)
    size = oci.prune(image.layout)
    partial = record.with_name(f".{record.name}")
    partial.write_text(json.dumps({"content": wanted, "digest": oci.image_digest(image.layout)}))
    partial.rename(record)
    say(f"built {image.name}, {size / 1e6:.0f} MB")


def _built(image: Image) -> dict[str, str]:
    try:
        content: dict[str, str] = json.loads(image.record.read_text())
    except (OSError, ValueError):
        return {}
    return content


def _loaded_digest(image: Image) -> str:
    lines = ctr("images", "ls", f"name=={image.in_containerd}").splitlines()[1:]
    return lines[0].split()[2] if lines else ""


def _load_natively(image: Image) -> None:
    wanted = _built(image)["digest"]
    if _loaded_digest(image) == wanted:
        say(f"{image.name} is in the cluster already")
        return
    archive = IMAGES / "load.tar"
    there = set(ctr("content", "ls", "--quiet").split())
    for skipped in (there, set[str]()):
        oci.write_difference(image.layout, archive, image.in_containerd, skipped)
        try:
            ctr("images", "import", archive)
        except ClusterError:
            if not skipped:
                raise
            continue  # something that was there is gone: send all of it
        break
    archive.unlink()
    if _loaded_digest(image) != wanted:
        raise ClusterError(f"containerd did not take {image.name}")
    say(f"loaded {image.name} into the cluster")


def status() -> str:
    """Return a line on the image."""
    built = _built(HYBRIDJOBS).get("digest", "")
    if not (built and holder()):
        return f"image {HYBRIDJOBS.name}: {'built' if built else 'not built'}"
    loaded = _loaded_digest(HYBRIDJOBS)
    return f"image {HYBRIDJOBS.name}: " + (
        "loaded" if loaded == built else "built, not loaded (make image)"
    )
