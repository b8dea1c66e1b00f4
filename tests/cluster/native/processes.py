"""Processes that outlive the command that started them, known by pid and start time.

A record is written for each; a pid alone could by now belong to somebody else.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster.native.layout import LOGS, RECORDS
from tests.cluster.shell import ClusterError


@dataclass(frozen=True)
class Process:
    """A process of ours; `started` is its start time in clock ticks since boot."""

    pid: int
    started: int
    argv_digest: str = ""

    def is_alive(self) -> bool:
        """Return whether this very process runs (a zombie does not)."""
        return _state(self.pid) == (True, self.started)

    def signal(self, number: int) -> None:
        """Send a signal, unless the process is gone."""
        if self.is_alive():
            os.kill(self.pid, number)

    def stop(self, grace_seconds: float) -> None:
        """End it: SIGTERM, SIGKILL after the grace, and wait until it is gone."""
        for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 10.0)):
            if seconds <= 0:
                continue
            self.signal(number)
            self.signal(signal.SIGCONT)
            end = time.monotonic() + seconds
            while self.is_alive() and time.monotonic() < end:
                time.sleep(0.02)
        if self.is_alive():
            raise ClusterError(f"process {self.pid} does not end")


def _state(pid: int) -> tuple[bool, int]:
    """Return (runs, start time) as /proc tells; (False, 0) when there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False, 0
    return fields[0] not in "ZX", int(fields[19])


def recorded(name: str) -> Process | None:
    """Return the process once started under this name, dead or alive."""
    try:
        return Process(**json.loads((RECORDS / name).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def forget(name: str) -> None:
    """Drop the record of a process that is gone."""
    (RECORDS / name).unlink(missing_ok=True)


def launch(
    name: str,
    argv: Sequence[str | Path],
    *,
    enter: Callable[[], None],
    env: Mapping[str, str] | None = None,
    argv_digest: str = "",
) -> Process:
    """Start a daemon, in the namespaces that enter() joins, and record it.

    Two forks: the first child joins (a process is never itself in the pid namespace it joins,
    only its children are), the second is the program, adopted by the machine's init.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    RECORDS.mkdir(parents=True, exist_ok=True)
    arguments = [str(part) for part in argv]
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    environment.update(env or {})
    reader, writer = os.pipe()  # closed by a successful exec
    log = os.open(LOGS / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open("/dev/null", os.O_RDONLY)
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            enter()
            if program := os.fork():
                os.write(writer, f"{program}\n".encode())
                os._exit(0)
            os.chdir("/")
            os.dup2(null, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.execve(arguments[0], arguments, environment)
        except BaseException as error:  # nothing may return from a forked child
            os.write(writer, f"!{error}\n".encode())
        finally:
            os._exit(1)
    for descriptor in (writer, log, null):
        os.close(descriptor)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        lines = pipe.read().split()
    errors = [line for line in lines if line.startswith("!")]
    if errors or not lines:
        raise ClusterError(f"{name} does not start: {' '.join(lines)}")
    _, started = _state(int(lines[0]))
    process = Process(int(lines[0]), started, argv_digest)
    partial = RECORDS / f".{name}"
    partial.write_text(json.dumps(asdict(process)))
    partial.rename(RECORDS / name)
    return process
