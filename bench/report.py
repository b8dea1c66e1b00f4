"""How every bench ends: its figures printed, and a file that says where they are from."""

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"

_PACKAGES = ("hybridjobs", "uvicorn", "uvloop", "starlette", "psycopg", "kubernetes", "kopf")


class Report:
    """The figures of one bench. `command` is how to repeat it."""

    def __init__(self, name: str, command: str) -> None:
        self._name = name
        self._command = command
        self._figures: dict[str, float] = {}
        self._details: dict[str, object] = {}

    def add(self, name: str, value: float) -> None:
        """A figure; its unit is the end of its name."""
        self._figures[name] = round(value, 3)

    def detail(self, name: str, value: object) -> None:
        """What the figures come from: JSON."""
        self._details[name] = value

    def write(self, path: Path | None = None) -> None:
        """Write them to a file, by default results/NAME.json, then print the figures."""
        document = {
            "figures": self._figures,
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": self._command,
            "machine": _machine(),
            "versions": _versions(),
            "details": self._details,
        }
        path = path or RESULTS / f"{self._name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=2) + "\n")
        self.show()

    def show(self) -> None:
        """Print the figures, one a line."""
        for name, value in self._figures.items():
            print(name, value)


def _machine() -> dict[str, object]:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
