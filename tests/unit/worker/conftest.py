"""A package of handlers that is installed only in the processes under test."""

import os
import shutil
import sys
from pathlib import Path

import pytest

_PROBES = Path(__file__).parent / "probes"
_NAMES = {
    "echo": "echo",
    "sum": "total",
    "fail": "fail",
    "facts": "facts",
    "steps": "steps",
    "last-words": "last_words",
    "finish-anyway": "finish_anyway",
    "hold": "hold",
    "odd-progress": "odd_progress",
    "thread": "leave_thread",
    "submit": "submit",
    "size": "size",
    "noise": "noise",
    "litter": "litter",
    "die": "die",
    "undecorated": "Sum",
    "missing": "nothing_of_that_name",
}


@pytest.fixture(scope="session")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that, on the path, is an installed distribution with entry points."""
    folder = tmp_path_factory.mktemp("site")
    for module in _PROBES.glob("*.py"):
        shutil.copy(module, folder)
    metadata = folder / "probes-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: probes\nVersion: 1.0\n")
    entries = [f"probe/{name} = probes:{attribute}" for name, attribute in _NAMES.items()]
    entries.append("probe/broken = probes_broken:handler")
    (metadata / "entry_points.txt").write_text("\n".join(["[hybridjobs.handlers]", *entries, ""]))
    return folder


@pytest.fixture
def environment(probes: Path) -> dict[str, str]:
    """What a process under test gets of the environment."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(probes),
        "PYTHONWARNINGS": "error",
        "LANG": "C.UTF-8",
    }


@pytest.fixture
def installed(probes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probes are installed in this process too."""
    monkeypatch.syspath_prepend(str(probes))
    for module in ("probes", "probes_broken"):
        monkeypatch.delitem(sys.modules, module, raising=False)
