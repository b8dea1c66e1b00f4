"""Jobs that run for as long as a test wants: those of type test/gated wait for a gate."""

import socket
from typing import Any, Self

from tests.cluster import current

# Its payload is the gate's address. A job looks every five seconds, and costs next to nothing.
GATED = """
told=${HYBRIDJOB_PAYLOAD//[^0-9.-]/}
echo "begun attempt $HYBRIDJOB_ATTEMPT"
until (: < "/dev/tcp/${told#*-}/${told%%-*}") 2>/dev/null; do sleep 5; done
echo "attempt $HYBRIDJOB_ATTEMPT may go"
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
