"""What the native cluster promises, tried out: `python -m tests.cluster.selfcheck`.

Kills `up` at many moments and the programs one by one, and sees that the next `up` mends it;
takes the cluster down, and compares the machine before and after. Five minutes; not a pytest
test, because it ends the cluster that the other tests run on.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster.native.api import Api
from tests.cluster.native.components import PAUSE_IMAGE, all_components
from tests.cluster.native.layout import BINDS, CGROUP
from tests.cluster.native.processes import recorded
from tests.cluster.shell import ClusterError, run, say, wait_until

_UP = (sys.executable, "-m", "tests.cluster", "up")
_DOWN = (sys.executable, "-m", "tests.cluster", "down")
_SETTINGS = ("kernel.keys", "kernel.panic", "net.ipv4.ip_forward", "net.netfilter", "vm.")


def machine() -> dict[str, str]:
    """Return what a cluster could change on the machine."""
    settings = {}
    for root in ("vm", "kernel", "net/ipv4", "net/netfilter"):
        for path in sorted((Path("/proc/sys") / root).rglob("*")):
            name = ".".join(path.relative_to("/proc/sys").parts)
            if path.is_file() and os.access(path, os.R_OK) and name.startswith(_SETTINGS):
                try:
                    settings[name] = path.read_text()
                except OSError:
                    continue
    ours = [str(Path(component.argv[0])) for component in all_components().values()]
    return {
        "links": "\n".join(line.split(" ", 1)[1] for line in run("ip", "-o", "link").splitlines()),
        "routes": run("ip", "route"),
        "nft": run("nft", "list", "ruleset"),
        "netns": run("ip", "netns", "list"),
        "mounts": "\n".join(sorted(Path("/proc/self/mounts").read_text().splitlines())),
        "processes": "\n".join(sorted(_programs(ours))),
        "cgroups": "\n".join(str(path) for path in Path("/sys/fs/cgroup").rglob(CGROUP)),
        "folders": "\n".join(point for point in BINDS if Path(point).exists()),
        **{name: value for name, value in settings.items() if "conntrack_count" not in name},
    }


def _programs(ours: list[str]) -> list[str]:
    found = []
    for exe in Path("/proc").glob("[0-9]*/exe"):
        try:
            program = str(exe.readlink())
        except OSError:
            continue
        if program in ours or "containerd-shim" in program or program.endswith("/pause"):
            found.append(program)
    return found


def up_killed_after(seconds: float) -> None:
    """Start `up` and kill it and what it started, as a lost terminal or a CI time limit does."""
    with subprocess.Popen(_UP, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def run_pods() -> None:
    """Start three pods and wait until they run: what is killed below must keep or clear them."""
    api = Api()
    pods = "/api/v1/namespaces/default/pods"
    for number in range(3):
        name = f"selfcheck-{number}"
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "pause", "image": PAUSE_IMAGE}]},
        }
        api.apply(f"{pods}/{name}", body)
    wait_until("pods run", lambda: pods_running(api) == 3, 60)


def pods_running(api: Api) -> int:
    """Return how many of the three pods run."""
    found = api.get("/api/v1/namespaces/default/pods") or {"items": []}
    return sum(item["status"].get("phase") == "Running" for item in found["items"])


def timed(*argv: str) -> float:
    """Return the seconds that the command took; raise ClusterError when it failed."""
    began = time.monotonic()
    run(*argv)
    return time.monotonic() - began


def main() -> int:
    """Try all of it; return the exit code."""
    try:
        timed(*_DOWN)
        before = machine()
        for tenths in (2, 4, 6, 8, 10, 15, 20, 25, 30, 35, 40, 50):
            up_killed_after(tenths / 10)
            say(f"up killed after {tenths / 10} s; the next took {timed(*_UP):.1f} s")
            if tenths % 4 == 0:
                run_pods()
                up_killed_after(tenths / 20)  # of a cluster that is up
            say(f"down took {timed(*_DOWN):.1f} s")
        say(f"up from nothing took {timed(*_UP):.1f} s")
        for _ in range(2):
            for name in ("node", *all_components()):
                run_pods()
                process = recorded(name)
                if process is None:
                    raise ClusterError(f"{name} has no record")
                process.signal(signal.SIGKILL)
                time.sleep(0.5)
                say(f"{name} killed; mending took {timed(*_UP):.1f} s")
                if name != "node" and pods_running(Api()) != 3:
                    raise ClusterError(f"the end of {name} ended pods")
        say(f"down took {timed(*_DOWN):.1f} s")
        after = machine()
        changed = {name for name in before | after if before.get(name) != after.get(name)}
        for name in sorted(changed):
            say(f"{name} was:\n{before.get(name)}\nis:\n{after.get(name)}")
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    say("nothing is left behind" if not changed else "the machine is not as it was")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
