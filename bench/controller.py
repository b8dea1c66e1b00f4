"""What the operator costs the API server, how soon it records an end, and what it holds in memory.

Writes: an installed release runs jobs one by one, two at a time; the API server's audit log says
which accounts wrote what, and when a Job's last condition was written. The row is looked at every
few milliseconds. Scale: ten thousand running jobs on kwok's nodes, and a sweep over as many rows
more as make a hundred thousand. Needs the native cluster, for its audit log.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from bench import controller_scale, controller_writes
from bench.report import Report

_JOBS, _ROWS = 10_000, 100_000


def main() -> int:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.controller", description=__doc__)
    parser.add_argument("--writes", type=int, default=40, help="jobs whose writes are counted")
    parser.add_argument("--jobs", type=int, default=_JOBS, help="running jobs; other than the")
    parser.add_argument("--rows", type=int, default=_ROWS, help="default: no results are written")
    arguments = parser.parse_args()
    report = Report("controller", "make bench-controller")
    with tempfile.TemporaryDirectory(prefix="hybridjobs-bench-") as folder:
        Path(folder).chmod(0o755)  # Postgres runs as nobody
        parts = (
            controller_writes.measure(arguments.writes),
            controller_scale.measure(Path(folder), jobs=arguments.jobs, rows=arguments.rows),
        )
        for name, part in zip(("writes", "scale"), parts, strict=True):
            figures, details = asyncio.run(part)
            for figure, value in figures.items():
                report.add(figure, value)
            report.detail(name, details)
    if (arguments.jobs, arguments.rows) == (_JOBS, _ROWS):
        report.write()
    else:
        report.show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
