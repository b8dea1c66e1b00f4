"""npm's packages, as a folder's package-lock.json pins them."""

import json
import subprocess
from pathlib import Path


def install(folder: Path) -> None:
    """Install into `folder`/node_modules, unless what is wanted is there."""
    installed = folder / "node_modules" / ".package-lock.json"
    wanted = json.loads((folder / "package-lock.json").read_text())["packages"]
    wanted.pop("")
    if not installed.exists() or json.loads(installed.read_text())["packages"] != wanted:
        subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder, check=True
        )
