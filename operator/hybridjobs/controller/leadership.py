"""Which of several operators acts: the one that holds a Lease, as client-go's leader election does.

An optimisation, not a lock: what a deposed leader still writes changes nothing, since every write
is guarded where it lands. So a clock is never compared with another machine's: a Lease is given up
for dead when it has not changed for as long as it says, by the clock of whoever looks.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from hybridjobs.errors import ClusterUnavailable
from hybridjobs.kube.client import (
    LEASES,
    AlreadyExists,
    ApiError,
    Conflict,
    Kubernetes,
    NotFound,
    Object,
)
from hybridjobs.kube.times import micro_time_text

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. A killed leader is followed within `duration + look`, one that ends within `look`.

    A leader that cannot renew for `give_up` stops acting, before another one may begin.
    """

    duration: int = 8
    give_up: float = 6.0
    renew: float = 2.0
    look: float = 1.0


class Leadership:
    """One replica's part in the election for the Lease `namespace`/`name`."""

    def __init__(
        self,
        kubernetes: Kubernetes,
        *,
        namespace: str,
        name: str,
        identity: str,
        timing: Timing = Timing(),
    ) -> None:
        self._kubernetes = kubernetes
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._timing = timing
        self._lease: Object | None = None  # as this replica wrote it last
        self.leads = False
        self.follows = False  # another replica holds the Lease

    async def run(
        self, lead: Callable[[], Awaitable[None]], follow: Callable[[], Awaitable[None]]
    ) -> None:
        """`follow` until the Lease is ours, `lead` while it is; until cancelled, or one ends.

        The Lease is given back at the end, so that another replica need not wait it out.
        """
        try:
            while True:
                await _while(follow, self._acquired())
                log.info("leading", identity=self._identity)
                self.leads, self.follows = True, False
                await _while(lead, self._lost())
                self.leads = False
                log.warning("no longer leading", identity=self._identity)
        finally:
            self.leads = self.follows = False
            await self._give_back()

    async def _acquired(self) -> None:
        """Return as soon as the Lease is ours."""
        loop = asyncio.get_running_loop()
        seen: str | None = None
        since = loop.time()
        while True:
            try:
                lease = await self._read()
                version = lease["metadata"]["resourceVersion"]
                if version != seen:
                    seen, since = version, loop.time()
                self.follows = not self._may_have(lease)
                if not self.follows or loop.time() - since >= _duration(lease):
                    self._lease = await self._write(lease, taking=True)
                    return
            except Conflict:
                pass  # somebody else was faster
            except (ApiError, ClusterUnavailable) as error:
                # Who cannot look has not seen that the Lease did not change.
                seen = None
                log.warning("the Lease cannot be taken", error=str(error))
            await asyncio.sleep(self._timing.look)

    async def _lost(self) -> None:
        """Renew the Lease; return when it is another's, or could not be renewed in time."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while self._lease is not None:
            await asyncio.sleep(self._timing.renew)
            began = loop.time()
            try:
                async with asyncio.timeout_at(renewed + self._timing.give_up):
                    self._lease = await self._write(self._lease, taking=False)
                renewed = began
            except (Conflict, NotFound):
                self._lease = await self._still_ours()
            except (ApiError, ClusterUnavailable) as error:
                log.warning("the Lease is not renewed", error=str(error))
            except TimeoutError:
                return

    async def _still_ours(self) -> Object | None:
        """The Lease, changed by a write of ours whose answer was lost; None if another's now."""
        with suppress(ApiError, ClusterUnavailable):
            lease = await self._kubernetes.get(LEASES, self._namespace, self._name)
            if lease["spec"].get("holderIdentity") == self._identity:
                return lease
        return None

    async def _read(self) -> Object:
        try:
            return await self._kubernetes.get(LEASES, self._namespace, self._name)
        except NotFound:
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": {"holderIdentity": ""},
            }
        with suppress(AlreadyExists):
            return await self._kubernetes.create(LEASES, self._namespace, body)
        return await self._kubernetes.get(LEASES, self._namespace, self._name)

    async def _write(self, lease: Object, *, taking: bool) -> Object:
        """Put our name and the time in; Conflict where the Lease is not as it was read."""
        now = micro_time_text(datetime.now(UTC))
        spec: Object = {"renewTime": now}
        if taking:
            spec |= {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": self._timing.duration,
                "acquireTime": now,
                "leaseTransitions": (lease["spec"].get("leaseTransitions") or 0) + 1,
            }
        return await self._patch(lease, spec)

    def _may_have(self, lease: Object) -> bool:
        return lease["spec"].get("holderIdentity") in (None, "", self._identity)

    async def _give_back(self) -> None:
        if self._lease is None:
            return
        lease, self._lease = self._lease, None
        # Another has it, or nobody can be told; then it runs out by itself.
        with suppress(ApiError, ClusterUnavailable, TimeoutError):
            async with asyncio.timeout(self._timing.renew):
                await self._patch(lease, {"holderIdentity": "", "leaseDurationSeconds": 1})

    async def _patch(self, lease: Object, spec: Object) -> Object:
        version = lease["metadata"]["resourceVersion"]
        body = {"metadata": {"resourceVersion": version}, "spec": spec}
        return await self._kubernetes.patch(LEASES, self._namespace, self._name, body)


async def _while(act: Callable[[], Awaitable[None]], until: Awaitable[None]) -> None:
    """Run `act` until `until` returns; that `act` ends by itself is an error."""
    acting = asyncio.ensure_future(act())
    waiting = asyncio.ensure_future(until)
    try:
        await asyncio.wait([acting, waiting], return_when=asyncio.FIRST_COMPLETED)
        if acting.done():
            acting.result()
            raise RuntimeError("what an operator does ended by itself")
        waiting.result()
    finally:
        for task in (acting, waiting):
            task.cancel()
        await asyncio.wait([acting, waiting])


def _duration(lease: Object) -> int:
    seconds: int = lease["spec"].get("leaseDurationSeconds") or 0
    return seconds
