"""Prometheus' own tool, which is built once per machine."""

import subprocess
from pathlib import Path

from tests.cluster import tools


def promtool(*arguments: str | Path) -> None:
    """Run it; AssertionError with what it says when it does not agree."""
    result = subprocess.run(
        [tools.PROMETHEUS.built() / "promtool", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
