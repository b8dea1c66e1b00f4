"""A kind cluster, where a container engine runs."""

import shutil
from pathlib import Path

from tests.cluster import tools
from tests.cluster.paths import KIND
from tests.cluster.shell import ClusterError, lock, run, run_long, say, succeeds

NAME = "hybridjobs"
KUBECONFIG = KIND / "kubeconfig"


def engine() -> str | None:
    """Return the container engine that answers, docker before podman; None without any."""
    for name in ("docker", "podman"):
        if shutil.which(name) and succeeds(name, "info"):
            return name
    return None


def _kind() -> Path:
    return Path(found) if (found := shutil.which("kind")) else tools.KIND.built() / "kind"


def _environment() -> dict[str, str]:
    chosen = engine()
    if chosen is None:
        raise ClusterError("no container engine answers")
    return {"KIND_EXPERIMENTAL_PROVIDER": chosen}


def is_up() -> bool:
    """Return whether our kind cluster runs."""
    return KUBECONFIG.exists() and engine() is not None and NAME in _clusters()


def _clusters() -> list[str]:
    return run(_kind(), "get", "clusters", env=_environment()).split()


def up() -> None:
    """Create the cluster, or only write its kubeconfig again."""
    with lock(KIND.parent / "kind.lock"):
        KIND.mkdir(parents=True, exist_ok=True)
        if NAME not in _clusters():
            run_long(
                "Creating a kind cluster",
                *(_kind(), "create", "cluster", "--name", NAME, "--wait", "180s"),
                *("--kubeconfig", KUBECONFIG),
                env=_environment(),
            )
        export = ("export", "kubeconfig", "--name", NAME, "--kubeconfig", KUBECONFIG)
        run(_kind(), *export, env=_environment())
        say(f"kind cluster {NAME} is up")


def down() -> None:
    """Delete the cluster."""
    if engine() and NAME in _clusters():
        run_long(
            "Deleting the kind cluster",
            *(_kind(), "delete", "cluster", "--name", NAME, "--kubeconfig", KUBECONFIG),
            env=_environment(),
        )
    shutil.rmtree(KIND, ignore_errors=True)


def load(image: str) -> None:
    """Copy an image of the container engine into the cluster's node."""
    load_image = ("load", "docker-image", image, "--name", NAME)
    run_long(f"Loading {image} into kind", _kind(), *load_image, env=_environment())


def load_archive(archive: Path) -> None:
    """Copy an image archive into the cluster's node."""
    load_image = ("load", "image-archive", archive, "--name", NAME)
    run_long(f"Loading {archive.name} into kind", _kind(), *load_image, env=_environment())


def host_address() -> str:
    """Return this machine's address as pods see it: the gateway of kind's network."""
    form = "{{range .IPAM.Config}}{{.Gateway}} {{end}}"
    addresses = run(engine() or "docker", "network", "inspect", "kind", "--format", form).split()
    return next(address for address in addresses if ":" not in address)
