"""The main process of a job under `hybridjobs dev`: the pod's worker, which ends with its parent.

Standard input is a pipe that the parent holds; its end means that the parent is gone.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from threading import Thread
from typing import NoReturn

from hybridjobs.worker.pod import main

TERMINATION_LOG = "HYBRIDJOB_TERMINATION_LOG"


def _end_with_parent(pipe: int) -> NoReturn:
    os.read(pipe, 1)
    # Also what the handler has started: all of it is one group.
    os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _run() -> NoReturn:
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    Thread(target=_end_with_parent, args=[pipe], name="hybridjobs-parent", daemon=True).start()
    sys.exit(asyncio.run(main(os.environ, Path(os.environ[TERMINATION_LOG]))))


if __name__ == "__main__":
    _run()
