"""Says each claim to the cluster as a HybridJob.

The claim is committed first. A replica killed before its HybridJob exists leaves an open attempt
that nobody has confirmed, which the next claim, of any replica, hands out again; a HybridJob
created twice is one, since its name follows from the job's id.
"""

import asyncio
from datetime import timedelta

import structlog

from hybridjobs.errors import ClusterUnavailable
from hybridjobs.kube import names
from hybridjobs.kube.client import (
    HYBRIDJOBS,
    AlreadyExists,
    ApiError,
    Conflict,
    Kubernetes,
    NotFound,
    TooManyRequests,
)
from hybridjobs.kube.identity import is_over, job_id
from hybridjobs.kube.manifests import Object, hybridjob
from hybridjobs.logs import about
from hybridjobs.model import AttemptEnd, Claim, Outcome
from hybridjobs.observed import attempt_claimed
from hybridjobs.store.database import Database
from hybridjobs.store.outcome import record_outcome
from hybridjobs.store.resources import find_open, forget_uid, mark_dispatched
from hybridjobs.tracing import span

log = structlog.get_logger(__name__)

_PARALLEL = 16
_NOT_THE_JOBS = {401, 403, 404}  # rights, a quota, CRDs not yet there: waited for
_CONTENDED = "Conflict"  # many count by one quota, or it was changed meanwhile
_REFUSED_FOR = timedelta(minutes=5)


class ClusterRuntime:
    """Where claims are HybridJobs in `namespace`, unless their job names another."""

    def __init__(self, database: Database, kubernetes: Kubernetes, *, namespace: str) -> None:
        self._database = database
        self._kubernetes = kubernetes
        self._namespace = namespace
        self._parallel = asyncio.Semaphore(_PARALLEL)

    async def dispatch(self, claimed: Claim) -> bool:
        """Say the claim. ClusterUnavailable: nobody can be told now, and it is handed out again."""
        async with self._parallel:
            with about(claimed.job_id, claimed.attempt):
                return await self._dispatched(claimed)

    async def _dispatched(self, claimed: Claim) -> bool:
        try:
            with span("dispatch", claimed.traceparent, job_id=claimed.job_id, kind="producer"):
                await self._say(claimed)
        except TooManyRequests as error:
            raise ClusterUnavailable(error.message, retry_after=error.retry_after) from error
        except ApiError as error:
            await self._refused(claimed, error)
            return False
        return True

    async def _refused(self, claimed: Claim, error: ApiError) -> None:
        """The attempt stays open and unconfirmed, so it is tried again; but not for ever."""
        log.error("HybridJob refused", error=str(error))
        if error.status in _NOT_THE_JOBS or error.reason == _CONTENDED:
            return
        async with self._database.connection() as connection:
            attempt = await find_open(connection, claimed)
        if attempt is None or attempt.waited < _REFUSED_FOR:
            return
        # It may have started, when somebody has deleted the HybridJob since.
        outcome = Outcome.LOST if attempt.has_started else Outcome.NEVER_STARTED
        end = AttemptEnd(outcome, error.reason or "Refused", error.message)
        async with self._database.transaction() as connection:
            await record_outcome(connection, claimed.job_id, claimed.attempt, end)

    async def _say(self, claimed: Claim) -> None:
        namespace = claimed.namespace or self._namespace
        name = claimed.resource_name or names.hybridjob_name(claimed.type, claimed.job_id)
        body = hybridjob(claimed, name=name, namespace=namespace)
        if claimed.resource_uid is None:
            resource = await self._create(body, claimed, name, namespace)
        else:
            try:
                found = await self._kubernetes.get(HYBRIDJOBS, namespace, name)
                another = found["metadata"]["uid"] != claimed.resource_uid
                if another or await self._is_of_earlier_run(found, claimed):
                    await self._forget(claimed)  # the next round replaces what is in its place
                    return
                resource = await self._apply(body, found, claimed)
            except (Conflict, NotFound):
                # Deleted meanwhile; the next round, which finds no uid, creates a new one.
                await self._forget(claimed)
                return
        async with self._database.connection() as connection:
            await mark_dispatched(
                connection,
                claimed,
                namespace=namespace,
                name=resource["metadata"]["name"],
                uid=resource["metadata"]["uid"],
            )
        attempt_claimed(claimed.type, claimed.waited_seconds)

    async def _forget(self, claimed: Claim) -> None:
        assert claimed.resource_uid is not None
        async with self._database.connection() as connection:
            await forget_uid(connection, claimed.job_id, claimed.resource_uid)
        log.info("HybridJob to be made again")

    async def _delete(self, body: Object) -> None:
        metadata = body["metadata"]
        await self._kubernetes.delete(
            HYBRIDJOBS,
            metadata["namespace"],
            metadata["name"],
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
        )

    async def _create(self, body: Object, claimed: Claim, name: str, namespace: str) -> Object:
        try:
            return await self._kubernetes.create(HYBRIDJOBS, namespace, body)
        except AlreadyExists:
            found = await self._kubernetes.get(HYBRIDJOBS, namespace, name)
        if job_id(found) != claimed.job_id:
            own = names.hybridjob_name(claimed.type, claimed.job_id)
            if name == own:
                raise Conflict(409, "NameConflict", f"{name} belongs to another job")
            # Lost, and somebody has given its name to another one since.
            body = {**body, "metadata": {**body["metadata"], "name": own}}
            return await self._create(body, claimed, own, namespace)
        if "deletionTimestamp" in found["metadata"]:
            raise Conflict(409, "BeingDeleted", f"{name} is being deleted")
        if await self._is_of_earlier_run(found, claimed):
            await self._delete(found)
            return await self._kubernetes.create(HYBRIDJOBS, namespace, body)
        return await self._apply(body, found, claimed)

    async def _is_of_earlier_run(self, found: Object, claimed: Claim) -> bool:
        """Whether its cancel is done, or came too late, and its job is since run anew.

        A cancel cannot be taken back.
        """
        spec = found["spec"]
        if not spec.get("cancel") or not is_over(found):
            return False
        if spec.get("attempt", 0) >= claimed.attempt:
            return False  # it is of this run, or of a later one that a backup does not know
        # A claim that is open now was no part of what had been cancelled by then.
        async with self._database.connection() as connection:
            return await find_open(connection, claimed) is not None

    async def _apply(self, body: Object, found: Object, claimed: Claim) -> Object:
        """Have the HybridJob that is there say the claim, unless it does, or says a later one."""
        # A later one: the database was restored from before it, and counts up to it again.
        if found["spec"].get("attempt", 0) >= claimed.attempt:
            return found
        metadata = {**body["metadata"], "uid": found["metadata"]["uid"]}
        body = {**body, "metadata": metadata}
        namespace = metadata["namespace"]
        return await self._kubernetes.apply(HYBRIDJOBS, namespace, body, force=True)
