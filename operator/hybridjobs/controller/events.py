"""Kubernetes Events, for trouble alone: `kubectl describe hybridjob` shows them."""

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from socket import gethostname

import structlog

from hybridjobs.errors import ClusterUnavailable
from hybridjobs.kube.client import EVENTS, ApiError, Kubernetes, Object
from hybridjobs.kube.times import micro_time_text
from hybridjobs.model import AttemptEnd, Outcome

log = structlog.get_logger(__name__)

_NO_TROUBLE = {Outcome.SUCCEEDED, Outcome.RETRY_LATER, Outcome.CANCELLED}
# The same trouble of the same HybridJob within this time is one Event, counted.
_SERIES = timedelta(minutes=10)
_MAX_KNOWN = 1000
_MAX_NOTE = 1024  # characters, as the API server has it


@dataclass(slots=True)
class _Told:
    name: str
    at: datetime
    count: int = 1


class Events:
    """Tells of trouble. What cannot be told is left out: row and status say it too."""

    def __init__(self, kubernetes: Kubernetes, *, namespace: str) -> None:
        self._kubernetes = kubernetes
        self._namespace = namespace
        self._told: OrderedDict[tuple[str, str], _Told] = OrderedDict()

    async def ended(self, hybridjob: Object, attempt: int, end: AttemptEnd) -> None:
        """An attempt has ended, perhaps in trouble."""
        if end.outcome not in _NO_TROUBLE:
            note = f"attempt {attempt} ended as {end.outcome.value}: {end.message or end.reason}"
            await self.warn(hybridjob, end.reason, note)

    async def warn(self, hybridjob: Object, reason: str, note: str) -> None:
        """Something is in trouble; `reason` is one word for machines."""
        now = datetime.now(UTC)
        key = hybridjob["metadata"]["uid"], reason
        known = self._told.get(key)
        try:
            if known is not None and now - known.at < _SERIES:
                known.at, known.count = now, known.count + 1
                await self._again(known)
            else:
                self._told[key] = _Told(await self._create(hybridjob, reason, note, now), now)
                self._told.move_to_end(key)
        except (ApiError, ClusterUnavailable) as error:
            log.warning("an Event is not told", reason=reason, note=note, error=str(error))
        while len(self._told) > _MAX_KNOWN:
            self._told.popitem(last=False)

    async def _create(self, hybridjob: Object, reason: str, note: str, now: datetime) -> str:
        metadata = hybridjob["metadata"]
        name = f"{metadata['name']}.{secrets.token_hex(8)}"
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": self._namespace},
            "eventTime": micro_time_text(now),
            "type": "Warning",
            "reason": reason,
            "action": "Attempt",
            "note": note[:_MAX_NOTE],
            "reportingController": "hybridjobs.dev/operator",
            "reportingInstance": gethostname(),
            "regarding": {
                "apiVersion": hybridjob["apiVersion"],
                "kind": hybridjob["kind"],
                "namespace": self._namespace,
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        }
        await self._kubernetes.create(EVENTS, self._namespace, body)
        return name

    async def _again(self, told: _Told) -> None:
        # The note stays that of the first: the API server lets nobody change it.
        series = {"count": told.count, "lastObservedTime": micro_time_text(told.at)}
        await self._kubernetes.patch(EVENTS, self._namespace, told.name, {"series": series})
