"""Connections to permitted addresses only.

The name is resolved here, once, and what is connected to is the address that was checked: there is
no second look-up that could give another answer (DNS rebinding). TLS still verifies the name.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore

from hybridjobs.callbacks.targets import Targets

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_CONNECT_SECONDS = 5.0
_MAX_ADDRESSES = 4
# Not those threads that the rest of the process works with: a name server may be silent for long,
# and more may wait for it than messages are under way, since a look-up outlives its try.
_RESOLVERS = 64


class AddressRefused(httpcore.ConnectError):
    """The host's name leads to no address that callbacks may go to."""


class Resolver:
    """The system's resolver, in threads of its own; `look_up` is socket.getaddrinfo's kind."""

    def __init__(self, look_up: Callable[[str, int], list[Any]] | None = None) -> None:
        self._look_up = look_up or _look_up
        self._threads = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="resolve")

    async def __call__(self, host: str, port: int) -> list[str]:
        """The addresses of the host; httpcore.ConnectError where it has none."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._threads, self._look_up, host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} has no address: {error}") from error
        return list(dict.fromkeys(str(address[4][0]) for address in found))

    def close(self) -> None:
        """No more look-ups; those under way are left to end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int) -> list[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to what the targets permit, and nothing else."""

    def __init__(self, targets: Targets, resolve: Resolve) -> None:
        self._targets = targets
        self._resolve = resolve
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first permitted address that answers; AddressRefused for none."""
        found = await self._resolve(host, port)
        permitted = [address for address in found if self._targets.permits(host, address)]
        if not permitted:
            raise AddressRefused(f"{host} leads into a network that callbacks may not enter")
        failure: Exception | None = None
        for address in permitted[:_MAX_ADDRESSES]:
            try:
                return await self._backend.connect_tcp(
                    address,
                    port,
                    timeout=min(timeout or _CONNECT_SECONDS, _CONNECT_SECONDS),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure

    async def sleep(self, seconds: float) -> None:
        """As any backend."""
        await self._backend.sleep(seconds)
