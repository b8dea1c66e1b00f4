"""The loop that reads the schedules from the cluster, and writes their statuses back."""

import asyncio
import contextlib
from datetime import UTC, datetime

import structlog

from hybridjobs.errors import ClusterUnavailable
from hybridjobs.kube.client import HYBRIDJOB_SCHEDULES, ApiError, Kubernetes, NotFound
from hybridjobs.schedules.known import Known, KnownSchedules
from hybridjobs.schedules.status import says_anything_new, schedule_status

log = structlog.get_logger(__name__)

_POLL_SECONDS = 30.0


class Reporter:
    """Keeps the statuses true until cancelled."""

    def __init__(self, kubernetes: Kubernetes, known: KnownSchedules, *, namespace: str) -> None:
        self._kubernetes = kubernetes
        self._known = known
        self._namespace = namespace

    async def run(self) -> None:
        """Read and write, whenever there is something to say, and every 30 s."""
        while True:
            self._known.told.clear()
            try:
                await self.once()
            except (ClusterUnavailable, ApiError) as error:
                log.warning("schedules not reported", error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._known.told.wait()

    async def once(self) -> None:
        """One look at the cluster, and every status that is not true any more."""
        # A watch that was interrupted never tells of what was deleted meanwhile.
        events = self._known.events
        bodies = await self._kubernetes.list(HYBRIDJOB_SCHEDULES, self._namespace)
        self._known.replace_all(bodies, events=events)
        for known in self._known.all():
            await self._report(known)

    async def _report(self, known: Known) -> None:
        status = schedule_status(known, self._known.states, now=datetime.now(UTC))
        if status is None or not says_anything_new(known, status):
            return
        name = known.body["metadata"]["name"]
        try:
            body = await self._kubernetes.patch(
                HYBRIDJOB_SCHEDULES,
                self._namespace,
                name,
                {"status": status},
                subresource="status",
            )
        except NotFound:
            return
        except ApiError as error:
            log.warning("schedule not reported", schedule=name, error=str(error))
            return
        self._known.replace(known, body)
