"""Jobs that run for as long as a test wants, however slow the machine is: they wait for a gate."""

import socket
from typing import Any, Self

from tests.cluster import current

# What a job of type test/gated does. Its payload is the gate's address, for which it looks every
# five seconds: many of them cost next to nothing.
GATED = """
told=${HYBRIDJOB_PAYLOAD//[^0-9.-]/}
echo "begun attempt $HYBRIDJOB_ATTEMPT"
until (: < "/dev/tcp/${told#*-}/${told%%-*}") 2>/dev/null; do sleep 5; done
echo "attempt $HYBRIDJOB_ATTEMPT may go"
"""
# The same for a job in Python, which looks more often.
WAIT = """
import socket, time
def wait(gate):
    port, host = gate.split("-")
    while True:
        try:
            return socket.create_connection((host, int(port)), timeout=5).close()
        except OSError:
            time.sleep(0.5)
"""


class Gate:
    """A port of this machine, refused until it opens; whoever can connect then ends."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind((current().host_address, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def payload(self) -> dict[str, Any]:
        """What a job is told."""
        host, port = self._socket.getsockname()
        return {"gate": f"{port}-{host}"}

    def open(self) -> None:
        """Let all go on; nobody needs to accept, since the kernel answers."""
        self._socket.listen(2048)
