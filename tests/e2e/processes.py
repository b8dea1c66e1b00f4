"""The processes of a release's pods, where they run on this machine."""

from pathlib import Path
from typing import Any


def pids_of(pod: dict[str, Any], program: str) -> list[int]:
    """The pod's processes with that word in their command line; none on another machine."""
    uid = pod["metadata"]["uid"]
    return [
        int(each.name)
        for each in Path("/proc").glob("[0-9]*")
        if uid in _read(each / "cgroup").replace("_", "-") and program in _read(each / "cmdline")
    ]


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""  # it has ended
