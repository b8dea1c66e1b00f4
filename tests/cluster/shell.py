"""Running commands, saying what happens, and installing the Debian packages that are missing."""

import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_STARTED = time.monotonic()
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


class ClusterError(Exception):
    """What stands in the way, in words for the person who ran the command."""


def say(text: str) -> None:
    """Print a line with the seconds since the command began."""
    print(f"{time.monotonic() - _STARTED:6.1f} s  {text}", file=sys.stderr, flush=True)


def _die_with_parent() -> None:
    """Let a build end when `up` is killed, so that the next one finds nobody in its folder."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run(
    *argv: str | Path,
    stdin: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Return what the command printed; raise ClusterError with the end of its errors."""
    done = subprocess.run(
        [str(part) for part in argv],
        input=stdin,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        tail = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise ClusterError(f"{Path(str(argv[0])).name} {argv[1] if argv[1:] else ''}: {tail}")
    return done.stdout


def succeeds(*argv: str | Path) -> bool:
    """Return whether the command can be run and exits with 0."""
    try:
        run(*argv)
    except (ClusterError, OSError):
        return False
    return True


def run_long(
    what: str, *argv: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> None:
    """Run a command of minutes: a sign of life each 20 s, its output only when it fails."""
    began = time.monotonic()
    say(what)
    with subprocess.Popen(
        [str(part) for part in argv],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=_die_with_parent,  # noqa: PLW1509  # there are no threads
        text=True,
        errors="replace",
    ) as process:
        while True:
            try:
                output, _ = process.communicate(timeout=20)
                break
            except subprocess.TimeoutExpired:
                say(f"  still {what[0].lower()}{what[1:]}, {time.monotonic() - began:.0f} s so far")
    if process.returncode != 0:
        raise ClusterError(f"{what} failed:\n{output[-4000:]}")


def need(commands: Mapping[str, str]) -> None:
    """Install the Debian packages (values) of those commands (keys) that are not there."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = [package for name, package in commands.items() if not shutil.which(name, path=path)]
    if not missing:
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise ClusterError(f"please install: {' '.join(missing)}")
    packages = sorted({part for package in missing for part in package.split()})
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run_long("Reading Debian's package lists", "apt-get", "update", env=quiet)
    run_long(
        f"Installing {', '.join(packages)}",
        *("apt-get", "install", "-y", "--no-install-recommends", *packages),
        env=quiet,
    )


def wait_until(
    what: str, ready: Callable[[], bool], timeout_seconds: float, pause_seconds: float = 0.1
) -> None:
    """Poll until ready() is true; raise ClusterError naming `what` when it takes too long."""
    end = time.monotonic() + timeout_seconds
    while not ready():
        if time.monotonic() > end:
            raise ClusterError(f"{what}: not within {timeout_seconds:.0f} s")
        time.sleep(pause_seconds)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a file lock, which the kernel frees however the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another command that holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
