"""The node's namespaces: network, mounts and processes, held by one process.

All that the cluster starts lives in them, so the end of the holder ends every process, and with
the last process go the mounts. What is left for us to remove: the network namespace (with it go
the veth pair, routes and nftables rules), empty cgroups, empty mount points.
"""

import ctypes
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.cluster.native import processes
from tests.cluster.native.layout import (
    BINDS,
    CGROUP,
    HOST_ADDRESS,
    HOST_LINK,
    KERNEL_SETTINGS,
    LINK_PREFIX,
    MADE_FOLDERS,
    NETNS,
    NODE_ADDRESS,
    NODE_LINK,
    POD_RANGE,
    RECORDS,
    ROUTED,
    SERVICE_RANGE,
)
from tests.cluster.native.processes import Process
from tests.cluster.paths import NATIVE, RUN
from tests.cluster.shell import ClusterError, run, succeeds, wait_until

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _CLONE_NEWPID = 0x00020000, 0x20000000
_NETNS_FILE = Path("/run/netns") / NETNS
_HOLDER = "node"


def _call(name: str, *arguments: int) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def holder() -> Process | None:
    """Return the living process that holds the namespaces."""
    process = processes.recorded(_HOLDER)
    return process if process and process.is_alive() else None


def is_whole() -> bool:
    """Return whether namespaces, link and routes are all there."""
    process = holder()
    return (
        process is not None
        and _is_pause(process)
        and _NETNS_FILE.exists()
        and _same_namespace(process)
        and HOST_ADDRESS in _addresses()
        and len(run("ip", "route", "show", "dev", HOST_LINK).splitlines()) >= 3
    )


def _is_pause(process: Process) -> bool:
    """Return whether the holder has made its mounts, and is not just ending."""
    try:
        return Path(f"/proc/{process.pid}/exe").readlink().name == "pause"
    except OSError:
        return False


def _same_namespace(process: Process) -> bool:
    return Path(f"/proc/{process.pid}/ns/net").stat().st_ino == _NETNS_FILE.stat().st_ino


def _addresses() -> str:
    return run("ip", "-o", "-4", "addr", "show") if shutil.which("ip") else ""


def create(pause: Path) -> None:
    """Make network, cgroups, mounts and the holder, from nothing."""
    _make_network()
    _make_cgroups()
    _make_folders()
    script = NATIVE / "node.sh"
    script.write_text(_mounting_script(pause))

    def enter() -> None:
        _join(_NETNS_FILE)
        _call("unshare", _CLONE_NEWNS | _CLONE_NEWPID)

    process = processes.launch(_HOLDER, ["/bin/sh", script], enter=enter)

    def mounted() -> bool:
        if not process.is_alive():
            log = (NATIVE / "logs" / f"{_HOLDER}.log").read_text()[-1000:]
            raise ClusterError(f"the node's namespaces cannot be made: {log}")
        return _is_pause(process)

    wait_until("mounts of the node", mounted, 60, 0.01)


def _make_network() -> None:
    overlaps = [
        line for line in run("ip", "-4", "route", "show").splitlines() if line.startswith(ROUTED)
    ]
    if overlaps:
        raise ClusterError(f"this machine has routes of its own where ours would be: {overlaps}")
    run("ip", "netns", "add", NETNS)
    run("ip", "link", "add", HOST_LINK, "type", "veth", "peer", NODE_LINK, "netns", NETNS)
    run("ip", "addr", "add", f"{HOST_ADDRESS}/{LINK_PREFIX}", "dev", HOST_LINK)
    run("ip", "link", "set", HOST_LINK, "up")
    inside = ("ip", "-n", NETNS)
    run(*inside, "link", "set", "lo", "up")
    run(*inside, "addr", "add", f"{NODE_ADDRESS}/{LINK_PREFIX}", "dev", NODE_LINK)
    run(*inside, "link", "set", NODE_LINK, "up")
    run(*inside, "route", "add", "default", "via", HOST_ADDRESS)
    for target in (POD_RANGE, SERVICE_RANGE):
        run("ip", "route", "add", target, "via", NODE_ADDRESS, "dev", HOST_LINK)


def _make_folders() -> None:
    RUN.mkdir(parents=True, exist_ok=True)
    made = [point for point in BINDS if not Path(point).exists()]
    MADE_FOLDERS.write_text("\n".join(made))
    for point, source in BINDS.items():
        Path(point).mkdir(parents=True, exist_ok=True)
        source.mkdir(parents=True, exist_ok=True)
    for setting, value in KERNEL_SETTINGS.items():
        file = NATIVE / "kernel" / setting
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")


def _mounting_script(pause: Path) -> str:
    lines = ["set -e", "mount --make-rprivate /", "mount -t proc proc /proc"]
    lines += [f"mount --bind '{source}' {point}" for point, source in BINDS.items()]
    lines += [
        f"mount --bind '{NATIVE}/kernel/{setting}' /proc/sys/{setting}"
        for setting in KERNEL_SETTINGS
    ]
    # Shared among the cluster's own: what the kubelet mounts, containerd must see.
    lines += ["mount --make-rshared /", f"exec '{pause}'"]
    return "\n".join(lines) + "\n"


def _join(*files: Path) -> None:
    descriptors = [os.open(file, os.O_RDONLY) for file in files]
    for descriptor in descriptors:
        _call("setns", descriptor, 0)


def entrance() -> Callable[[], None]:
    """Return the function by which a forked child joins the node's namespaces."""
    process = holder()
    if process is None:
        raise ClusterError("the native cluster is not up (make cluster)")
    folder = Path(f"/proc/{process.pid}/ns")
    return lambda: _join(folder / "net", folder / "pid", folder / "mnt")


def run_inside(*argv: str | Path) -> str:
    """Return what a command printed that ran in the node's namespaces."""
    process = holder()
    if process is None:
        raise ClusterError("the native cluster is not up (make cluster)")
    return run("nsenter", f"--target={process.pid}", "--net", "--pid", "--mount", "--", *argv)


def _cgroup_folders() -> list[Path]:
    """Return our folder in each hierarchy of cgroup v1 and v2 (a machine may have both)."""
    folders = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        point = Path(fields.split()[4])
        if kind.startswith(("cgroup ", "cgroup2 ")):
            folders.append(point / CGROUP)
    return folders


def _make_cgroups() -> None:
    for folder in _cgroup_folders():
        folder.mkdir(exist_ok=True)
        available = folder.parent / "cgroup.controllers"
        if available.exists() and available.read_text().strip():
            wanted = " ".join(f"+{name}" for name in available.read_text().split())
            (folder.parent / "cgroup.subtree_control").write_text(wanted)
            (folder / "cgroup.subtree_control").write_text(wanted)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # v1 starts with none
            if not available.exists() and (folder / setting).exists():
                (folder / setting).write_text((folder.parent / setting).read_text())


def remove() -> None:
    """End all processes of the node and take away what was made for it."""
    if process := holder():
        process.stop(grace_seconds=0)
    if _NETNS_FILE.exists():
        _end_strays()
        run("ip", "netns", "del", NETNS)
    if shutil.which("ip") and succeeds("ip", "link", "show", HOST_LINK):
        run("ip", "link", "del", HOST_LINK)
    _remove_cgroups()
    if MADE_FOLDERS.exists():
        _remove_made_folders()
    shutil.rmtree(RECORDS, ignore_errors=True)
    shutil.rmtree(RUN, ignore_errors=True)


def _remove_made_folders() -> None:
    """By the last cluster of this machine: who removes a mount point unmounts it for all others."""
    made = MADE_FOLDERS.read_text().splitlines()
    for other in RUN.parent.glob(f"hybridjobs*/{MADE_FOLDERS.name}"):
        if other != MADE_FOLDERS:
            other.write_text("\n".join({*other.read_text().splitlines(), *made}))
            return
    for point in made:
        if Path(point).is_dir() and not any(Path(point).iterdir()):
            Path(point).rmdir()


def end_strays_of(program: Path) -> None:
    """End processes in our network namespace that run this program, recorded or not."""
    for pid in run("ip", "netns", "pids", NETNS).split():
        with suppress(OSError):  # gone meanwhile
            if Path(f"/proc/{pid}/exe").readlink() == program:
                os.kill(int(pid), signal.SIGKILL)


def _end_strays() -> None:
    """End what a killed `up` had put into the network namespace before it was recorded."""
    for _ in range(100):
        pids = run("ip", "netns", "pids", NETNS).split()
        if not pids:
            return
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.05)


def _remove_cgroups() -> None:
    for top in _cgroup_folders():
        for _ in range(100):
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):  # still has a process that is just ending
                    Path(folder).rmdir()
            if not top.exists():
                break
            time.sleep(0.05)


def leftovers() -> list[str]:
    """Return what of ours is on the machine; nothing, once the cluster is down."""
    found = [f"process {name}" for name in ("node",) if holder()]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [line for line in mounts if str(NATIVE) in line or str(RUN) in line]
    found += [f"cgroup {path}" for path in _cgroup_folders() if path.exists()]
    found += [f"{path}" for path in (_NETNS_FILE, RUN, NATIVE) if path.exists()]
    if MADE_FOLDERS.exists():
        made = MADE_FOLDERS.read_text().splitlines()
        found += [f"folder {point}" for point in made if Path(point).is_dir()]
    if shutil.which("ip"):
        links = run("ip", "-o", "link").splitlines() + run("ip", "route").splitlines()
        found += [line for line in links if HOST_LINK in line or ROUTED[0] in line]
    return found
