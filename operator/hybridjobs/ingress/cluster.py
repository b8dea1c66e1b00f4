"""The cluster that the ingress works with, all of it by one client.

Imported only where there is one: kubernetes.aio takes 2 s, which a process without a cluster need
not wait.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from hybridjobs.dispatch.cluster import ClusterRuntime
from hybridjobs.dispatch.loop import Runtime
from hybridjobs.kube import names
from hybridjobs.kube.client import ApiError, Kubernetes
from hybridjobs.kube.credentials import load_configuration
from hybridjobs.kube.reviews import Reviews
from hybridjobs.model import MAX_LOG_TAIL_BYTES
from hybridjobs.observed import kubernetes_answered
from hybridjobs.settings import IngressSettings, comma_separated
from hybridjobs.store.database import Database

log = structlog.get_logger(__name__)


class Cluster:
    """One cluster, with the jobs of `namespace`.

    `reviews` know callers of the API by its tokens for one of the audiences; None: for no audience.
    """

    def __init__(
        self, kubernetes: Kubernetes, *, namespace: str, audiences: Sequence[str] = ()
    ) -> None:
        self._kubernetes = kubernetes
        self._namespace = namespace
        self.reviews = (
            Reviews(kubernetes, audiences=audiences, namespace=namespace) if audiences else None
        )

    async def runtime(self, _: AsyncExitStack, database: Database) -> Runtime:
        """Where jobs run as HybridJobs."""
        return ClusterRuntime(database, self._kubernetes, namespace=self._namespace)

    async def log(self, pod: str, namespace: str | None) -> str | None:
        """The tail of a job's pod's log, None where there is none; ClusterUnavailable."""
        try:
            return await self._kubernetes.pod_log(
                namespace or self._namespace,
                pod,
                container=names.CONTAINER,
                max_bytes=MAX_LOG_TAIL_BYTES,
            )
        except ApiError as error:
            log.info("log not read", pod=pod, error=str(error))
            return None


@asynccontextmanager
async def connected(settings: IngressSettings, *, knows_callers: bool) -> AsyncIterator[Cluster]:
    """The cluster that this process runs in, or that a kubeconfig names; ConfigurationError."""
    audiences = comma_separated(settings.api_audiences)
    configuration = await load_configuration()
    async with Kubernetes(
        configuration, field_manager="hybridjobs-dispatcher", answered=kubernetes_answered
    ) as kubernetes:
        yield Cluster(
            kubernetes,
            namespace=settings.namespace,
            audiences=audiences if knows_callers else (),
        )
