"""npm's packages, as a folder's package-lock.json pins them."""

import json
import subprocess
from pathlib import Path


def install(folder: Path) -> None:
    """Install into `folder`/node_modules, unless what is wanted is there."""
    installed = folder / "node_modules" / ".package-lock.json"
    wanted = _digests(folder / "package-lock.json")
    wanted.pop("")
    if not installed.exists() or _digests(installed) != wanted:
        subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder, check=True
        )


def _digests(lock: Path) -> dict[str, str | None]:
    packages = json.loads(lock.read_text())["packages"]
    return {path: package.get("integrity") for path, package in packages.items()}
