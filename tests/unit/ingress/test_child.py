"""What is known of a child's processes."""

import os
import signal
import subprocess

from hybridjobs.ingress.child import _descendants

_ENDS_ALL_THE_TIME = "while :; do /bin/true & /bin/true; done"


def test_processes_that_end_while_they_are_looked_for_are_no_error() -> None:
    with subprocess.Popen(["sh", "-c", _ENDS_ALL_THE_TIME], start_new_session=True) as shell:
        try:
            found = {each for _ in range(10_000) for each in _descendants(shell.pid)}
        finally:
            os.killpg(shell.pid, signal.SIGKILL)
    assert found
