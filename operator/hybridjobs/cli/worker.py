"""The way into a pod's worker, apart from everything that a pod does not need."""

import asyncio
import sys
from typing import NoReturn


def run_worker() -> NoReturn:
    """Run the job that the environment names, and exit with its code."""
    from hybridjobs.worker.pod import main

    sys.exit(asyncio.run(main()))
