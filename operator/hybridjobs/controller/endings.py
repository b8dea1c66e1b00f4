"""Recording how attempts ended: with their log, an Event of trouble, and what is known of why."""

from dataclasses import replace

import structlog

from hybridjobs.controller.decide import View
from hybridjobs.controller.events import Events
from hybridjobs.controller.logs import PodLogs
from hybridjobs.controller.observe import NAMESPACE_TERMINATING
from hybridjobs.kube.client import CRDS, NAMESPACES, Kubernetes, NotFound, Resource
from hybridjobs.model import GROUP, AttemptEnd, Outcome
from hybridjobs.store.database import Database
from hybridjobs.store.outcome import record_final_outcome

log = structlog.get_logger(__name__)

_GOING = AttemptEnd(Outcome.LOST, NAMESPACE_TERMINATING, "its namespace is being deleted")
_CANCELLED = AttemptEnd(Outcome.CANCELLED, "HybridJobDeleted", "its HybridJob was deleted")
# What the deletion of a namespace looks like from inside, among others.
_TAKEN = {"JobDeleted", "PodDeleted", "PodLost"}


class Endings:
    """Records ends; `namespace` is the jobs namespace."""

    def __init__(
        self, database: Database, kubernetes: Kubernetes, logs: PodLogs, *, namespace: str
    ) -> None:
        self._database = database
        self._kubernetes = kubernetes
        self._logs = logs
        self._namespace = namespace
        self._events = Events(kubernetes, namespace=namespace)

    async def record(self, view: View, end: AttemptEnd) -> None:
        """Close the view's open attempt, unless somebody has."""
        row = view.row
        if end.reason in _TAKEN and await self._goes(NAMESPACES, self._namespace):
            end = replace(end, reason=_GOING.reason, message=_GOING.message)
        end = await self._logs.added(view, end)
        recorded = await record_final_outcome(self._database, row.job_id, row.attempt, end)
        if recorded is not None and recorded.changed:
            await self._events.ended(view.hybridjob, row.attempt, end)
            log.info(
                "attempt ended",
                type=row.type,
                outcome=end.outcome.value,
                reason=end.reason,
                status=recorded.status.value,
            )

    async def by_deletion(self) -> AttemptEnd | None:
        """What the deletion of a HybridJob, which we did not ask for, means.

        A user cancels; with its namespace it is lost, and its job waits until there is one again.
        None: with its definition, which may come back with all of them.
        """
        if await self._goes(NAMESPACES, self._namespace):
            return _GOING
        return None if await self._goes(CRDS, f"hybridjobs.{GROUP}") else _CANCELLED

    async def _goes(self, resource: Resource, name: str) -> bool:
        """Whether a thing of the whole cluster is being deleted, or gone."""
        try:
            found = await self._kubernetes.get(resource, None, name)
        except NotFound:
            return True
        return "deletionTimestamp" in found["metadata"]
