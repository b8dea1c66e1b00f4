"""Building the image without a container engine: mmdebstrap makes the base, buildah the rest.

buildah runs in a mount namespace of its own: a killed build leaves no mounts behind.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.oci import ARCHITECTURE
from tests.cluster.paths import CHECKOUT, IMAGES, RUN
from tests.cluster.shell import ClusterError, need, run, run_long, say, succeeds

_SUITE = "bookworm"
PYTHON = ("ca-certificates", "python3", "python3-venv", "tzdata")
"""What a base image has beside Debian's minimum."""
SHELL = ("ca-certificates", "curl", "jq")
_BASE_VERSION = "1"
_UNWANTED = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*")
_RUNROOT = f"{RUN}-build"
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")


def install_packages() -> None:
    """Install what a build needs."""
    if os.geteuid() != 0:
        raise ClusterError("building without a container engine needs root")
    need({name: name for name in ("buildah", "mmdebstrap", "skopeo")} | {"unshare": "util-linux"})


def base_key(packages: tuple[str, ...]) -> str:
    """Return the name of the base image's content."""
    recipe = repr((_SUITE, packages, _UNWANTED, _BASE_VERSION, ARCHITECTURE))
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def _base_archive(packages: tuple[str, ...]) -> Path:
    """Return a tar of a small Debian with these, after making it when it is not cached."""
    archive = IMAGES / f"base-{base_key(packages)}.tar"
    if not archive.exists():
        partial = IMAGES / f".partial-base-{base_key(packages)}.tar"
        partial.unlink(missing_ok=True)
        run_long(
            f"Making a base image of Debian {_SUITE} (about 30 s)",
            *("unshare", "--mount", "mmdebstrap", "--variant=minbase", "--quiet"),
            f"--include={','.join(packages)}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in _UNWANTED),
            *(f"--aptopt={option}" for option in _apt_options()),
            *(_SUITE, partial),
        )
        partial.rename(archive)
    return archive


def _apt_options() -> list[str]:
    """Return this machine's own ways to Debian's packages: mmdebstrap starts with none."""
    dump = run("apt-config", "dump", "Acquire").splitlines()
    return [line for line in dump if line.startswith(("Acquire::http", "Acquire::https"))]


def _storage() -> Path:
    """Return buildah's folder for these dependencies, after removing those for others."""
    digest = hashlib.sha256(base_key(PYTHON).encode())
    for name in ("requirements.txt", "requirements-build.txt"):
        digest.update((CHECKOUT / name).read_bytes())
    storage = IMAGES / f"storage-{digest.hexdigest()[:12]}"
    for other in IMAGES.glob("storage-*"):
        if other != storage:
            shutil.rmtree(other, ignore_errors=True)
    return storage


def build(name: str, folder: Path, packages: tuple[str, ...], layout: Path) -> None:
    """Build a folder's Dockerfile on a base with the packages, into an OCI layout folder."""
    storage = _storage()
    folders = (f"--root={storage}", f"--runroot={_RUNROOT}", "--storage-driver=overlay")
    buildah = ("unshare", "--mount", "buildah", *folders)
    base = f"localhost/hybridjobs-base:{base_key(packages)}"
    try:
        if not succeeds(*buildah, "inspect", "--type=image", base):
            _import_base(buildah, base, packages)
        with pip_secrets() as secrets:
            run_long(
                f"Building {name} (minutes when the dependencies changed, else seconds)",
                *(*buildah, "bud", "--isolation=chroot", "--network=host", "--layers"),
                *(f"--build-arg=BASE={base}", f"--tag={name}", *secrets, str(folder)),
            )
        # Uncompressed layers are found again by their digest, and quicker to unpack; buildah's
        # own push would compress all of them each time.
        source = f"containers-storage:[overlay@{storage}+{_RUNROOT}]localhost/{name}"
        run(
            *("unshare", "--mount", "skopeo", "--insecure-policy", "copy", "--quiet"),
            *("--dest-oci-accept-uncompressed-layers", source, f"oci:{layout}:dev"),
        )
    finally:
        shutil.rmtree(_RUNROOT, ignore_errors=True)


def _import_base(buildah: Sequence[str], base: str, packages: tuple[str, ...]) -> None:
    archive = _base_archive(packages)
    say("importing the base image")
    container = run(*buildah, "from", "--quiet", "scratch").strip()
    run(*buildah, "add", "--quiet", container, archive)
    run(*buildah, "commit", "--quiet", "--rm", container, base)


@contextmanager
def pip_secrets() -> Iterator[tuple[str, ...]]:
    """Give the build this machine's pip settings and authorities, by files that exist meanwhile."""
    lines = ["[global]"]
    for line in _pip_config().splitlines():
        name, _, value = line.partition("=")
        if name.rpartition(".")[2] in _PIP_SETTINGS:
            lines.append(f"{name.rpartition('.')[2]} = {value.strip(chr(39))}")
    authorities = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
    with tempfile.TemporaryDirectory(prefix="hybridjobs-") as folder:
        secrets: tuple[str, ...] = ()
        if authorities.exists():
            lines.append("cert = /run/secrets/ca.crt")
            secrets = (f"--secret=id=ca.crt,src={authorities}",)
        settings = Path(folder) / "pip.conf"
        settings.touch(mode=0o600)
        settings.write_text("\n".join(lines) + "\n")
        yield (*secrets, f"--secret=id=pip.conf,src={settings}")


def _pip_config() -> str:
    for pip in ([sys.executable, "-m", "pip"], ["pip"]):
        done = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
    return ""
