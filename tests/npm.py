"""Packages of npm that tests use: `python -m tests.npm FOLDER` installs what its lock pins."""

import json
import subprocess
import sys
from pathlib import Path


def install(folder: Path) -> None:
    """Install what the folder's package-lock.json pins, unless it is there."""
    installed = folder / "node_modules" / ".package-lock.json"
    wanted = json.loads((folder / "package-lock.json").read_text())["packages"]
    wanted.pop("")
    if not installed.exists() or json.loads(installed.read_text())["packages"] != wanted:
        subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder, check=True
        )


if __name__ == "__main__":
    install(Path(sys.argv[1]))
