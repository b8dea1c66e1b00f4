"""The tail of each pod's log: read while it lasts, recorded with the outcome."""

from dataclasses import replace

import structlog

from hybridjobs.controller.cache import Cache, Object
from hybridjobs.controller.decide import View
from hybridjobs.controller.observe import is_ended
from hybridjobs.errors import ClusterUnavailable
from hybridjobs.kube import names
from hybridjobs.kube.client import ApiError, Kubernetes
from hybridjobs.model import MAX_LOG_TAIL_BYTES, AttemptEnd

log = structlog.get_logger(__name__)


class PodLogs:
    """Reads logs; those not yet recorded are kept in the cache."""

    def __init__(self, kubernetes: Kubernetes, cache: Cache, *, namespace: str) -> None:
        self._kubernetes = kubernetes
        self._cache = cache
        self._namespace = namespace

    async def read_early(self, view: View) -> None:
        """Read the log while it lasts: a drained pod vanishes before its Job is terminal."""
        if view.pod is None or view.row.has_log or not is_ended(view.pod):
            return
        if self._cache.log_of(view.pod) is None:
            text = await self._read(view.pod)
            if text is not None:
                self._cache.keep_log(view.pod, text)

    async def added(self, view: View, end: AttemptEnd) -> AttemptEnd:
        """The end with the log's tail, where there is one to be had."""
        if view.pod is None:
            return end
        text = self._cache.log_of(view.pod)
        if text is None:
            text = await self._read(view.pod)
        return replace(end, log_tail=text)

    def recorded(self, view: View) -> None:
        """The end with its log is committed: it need not be kept any longer."""
        if view.pod is not None:
            self._cache.forget_log(view.pod)

    async def _read(self, pod: Object) -> str | None:
        """The tail of the pod's log; None where the kubelet no longer has it, or never had."""
        name = pod["metadata"]["name"]
        try:
            return await self._kubernetes.pod_log(
                self._namespace, name, container=names.CONTAINER, max_bytes=MAX_LOG_TAIL_BYTES
            )
        except ApiError:
            return None
        except ClusterUnavailable as error:
            # The API server passes on a kubelet that does not answer as a 5xx: a lost node must
            # not keep the outcome from being recorded.
            log.warning("log not read", pod=name, error=error.detail)
            return None
