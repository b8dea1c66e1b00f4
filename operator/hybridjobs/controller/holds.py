"""Why a Job has no pod, where neither of them says it.

Kueue tells it in the Workload that it keeps for a suspended Job (kueue.sigs.k8s.io,
"Troubleshooting Jobs"), the Job controller in Events about a pod that it was refused.
"""

from datetime import UTC, datetime, timedelta
from time import monotonic

import structlog

from hybridjobs.controller.cache import Object
from hybridjobs.controller.observe import condition, is_suspended, time, why_refused
from hybridjobs.errors import ClusterUnavailable
from hybridjobs.kube.client import EVENTS, ApiError, Kubernetes, NotFound, Resource
from hybridjobs.kube.names import QUEUE

log = structlog.get_logger(__name__)

_WORKLOADS = tuple(
    Resource("kueue.x-k8s.io", version, "workloads") for version in ("v1beta2", "v1beta1")
)
_JOB_UID = "kueue.x-k8s.io/job-uid"
# All that wait share one list of Workloads that is not older.
_LIST_SECONDS = 5.0
# Younger Jobs without a pod are no trouble.
_PATIENCE = timedelta(seconds=5)


class Holds:
    """Asks those who keep Jobs of `namespace` without a pod."""

    def __init__(self, kubernetes: Kubernetes, *, namespace: str) -> None:
        self._kubernetes = kubernetes
        self._namespace = namespace
        self._workloads: dict[str, Object] | None = None  # by the Job's uid
        self._listed_at = -_LIST_SECONDS
        self._warned: set[str] = set()

    async def told(self, job: Object, pod: Object | None, *, begun: bool) -> tuple[str, str] | None:
        """Reason and message for people; None where nobody keeps it, or nobody says so.

        Of one that has `begun`: why its pod was taken away.
        """
        if is_suspended(job):
            queue = (job["metadata"].get("labels") or {}).get(QUEUE)
            if begun:
                return await self._why_taken_away(job["metadata"]["uid"])
            return None if queue is None else await self._why_queued(job["metadata"]["uid"], queue)
        began = time((job.get("status") or {}).get("startTime"))
        if pod is None and began is not None and datetime.now(UTC) - began >= _PATIENCE:
            return await self._why_no_pod(job["metadata"]["uid"])
        return None

    async def _why_queued(self, uid: str, queue: str) -> tuple[str, str]:
        if monotonic() - self._listed_at >= _LIST_SECONDS:
            listed = await self._list_workloads(_JOB_UID)
            self._workloads = None
            if listed is not None:
                self._workloads = {each["metadata"]["labels"][_JOB_UID]: each for each in listed}
            self._listed_at = monotonic()
        return "Suspended", f"LocalQueue {queue}: {self._said_of(uid)}"

    def _said_of(self, uid: str) -> str:
        if self._workloads is None:
            return "not admitted yet"
        workload = self._workloads.get(uid)
        if workload is None:
            return "Kueue has not taken it up; is it installed here?"
        conditions = (workload.get("status") or {}).get("conditions") or []
        said = {each["type"]: each for each in conditions}
        if condition(workload, "Admitted") is not None:
            return "admitted, and about to begin"
        for type_ in ("QuotaReserved", "Admitted"):
            held = said.get(type_)
            if held is not None and held["status"] == "False" and held.get("message"):
                return str(held["message"])
        reserved = condition(workload, "QuotaReserved")
        return "waits for admission checks" if reserved is not None else "not admitted yet"

    async def _why_taken_away(self, uid: str) -> tuple[str, str] | None:
        for workload in await self._list_workloads(f"{_JOB_UID}={uid}") or []:
            evicted = condition(workload, "Evicted")
            if evicted is not None:
                return evicted["reason"], evicted.get("message") or "evicted by Kueue"
        return None

    async def _list_workloads(self, labels: str) -> list[Object] | None:
        """Empty where there is no Kueue; None where it cannot be known, as without the right."""
        for resource in _WORKLOADS:
            try:
                return await self._kubernetes.list(resource, self._namespace, labels=labels)
            except NotFound:
                continue
            except (ApiError, ClusterUnavailable) as error:
                self._unread("workloads", error)
                return None
        return []

    async def _why_no_pod(self, uid: str) -> tuple[str, str] | None:
        fields = f"regarding.uid={uid},reason=FailedCreate"
        try:
            events = await self._kubernetes.list(EVENTS, self._namespace, fields=fields)
        except (ApiError, ClusterUnavailable) as error:
            self._unread("events", error)
            return None
        if not events:
            return None
        note: str = max(events, key=_last_seen).get("note") or ""
        return why_refused(note.removeprefix("Error creating: "), "FailedCreate")

    def _unread(self, what: str, error: ApiError | ClusterUnavailable) -> None:
        """Reasons are extra: without them everything goes on."""
        if what not in self._warned:
            self._warned.add(what)
            log.warning("reasons are not read", what=what, error=str(error))


def _last_seen(event: Object) -> str:
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("deprecatedLastTimestamp")
        or event["metadata"]["creationTimestamp"]
    )
