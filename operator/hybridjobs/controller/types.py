"""HybridJobTypes: those of the cluster mirrored into Postgres."""

from datetime import UTC, datetime

import structlog
from pydantic import ValidationError

from hybridjobs.controller.cache import Cache, Object
from hybridjobs.controller.definitions import definition_goes, namespace_goes
from hybridjobs.controller.workqueue import WorkQueue
from hybridjobs.errors import (
    BrokenPayloadSchema,
    ClusterUnavailable,
    DatabaseUnavailable,
)
from hybridjobs.kube.client import HYBRIDJOB_TYPES, Kubernetes, NotFound
from hybridjobs.kube.times import time_text
from hybridjobs.model import JobType
from hybridjobs.payload_schemas import PayloadSchemas
from hybridjobs.store.database import Database
from hybridjobs.store.types import delete_other_types, delete_type, upsert_type

log = structlog.get_logger(__name__)


class TypeMirror:
    """Keeps `job_types` and the cache equal to the cluster's HybridJobTypes."""

    def __init__(
        self,
        database: Database,
        kubernetes: Kubernetes,
        cache: Cache,
        queue: WorkQueue,
        *,
        namespace: str,
    ) -> None:
        self._database = database
        self._kubernetes = kubernetes
        self._cache = cache
        self._queue = queue
        self._namespace = namespace
        self._schemas = PayloadSchemas()
        self._complete = False

    async def read_all(self) -> None:
        """Mirror the full list: what events have not told, or the database could not take."""
        before = list(self._cache.types.values())
        bodies = await self._kubernetes.list(HYBRIDJOB_TYPES, self._namespace)
        for body in bodies:
            await self._put(body)
        if not bodies:
            # What a cluster made anew shows. No administrator means by it that webhooks are to
            # be ignored until somebody has applied the types again.
            log.warning("the cluster has no job types; those known are kept")
            return
        listed = {body["metadata"]["uid"] for body in bodies}
        if not self._complete:
            async with self._database.connection() as connection:
                await delete_other_types(connection, [body["spec"]["type"] for body in bodies])
        for job_type in before:
            if job_type.uid not in listed:
                await self._delete(job_type.spec.type, job_type.uid)
        self._complete = True

    async def on_event(self, kind: str | None, body: Object) -> None:
        """One watch event. What the database cannot take now, the next `read_all` brings."""
        try:
            if kind == "DELETED":
                if await definition_goes(self._kubernetes, HYBRIDJOB_TYPES) or (
                    await namespace_goes(self._kubernetes, self._namespace)
                ):
                    return  # by nobody's wish
                await self._delete(body["spec"]["type"], body["metadata"]["uid"])
            else:
                await self._put(body)
        except (DatabaseUnavailable, ClusterUnavailable) as error:
            log.warning("job type put off", name=body["metadata"]["name"], error=error.detail)

    async def _delete(self, type_: str, uid: str) -> None:
        async with self._database.connection() as connection:
            await delete_type(connection, uid)
        known = self._cache.types.get(type_)
        if known is not None and known.uid == uid:
            del self._cache.types[type_]

    async def _put(self, body: Object) -> None:
        metadata = body["metadata"]
        try:
            job_type = JobType.parse(
                name=metadata["name"],
                uid=metadata["uid"],
                generation=metadata["generation"],
                spec=body["spec"],
            )
            self._schemas.compile(job_type)
        except (ValidationError, BrokenPayloadSchema) as error:
            await self._say(body, "False", "Invalid", str(error)[:1024])
            return
        known = self._cache.types.get(job_type.spec.type)
        if known and known.uid == job_type.uid and known.generation > job_type.generation:
            return  # from a list that an event has overtaken
        async with self._database.connection() as connection:
            await upsert_type(connection, job_type)
        self._cache.types[job_type.spec.type] = job_type
        if known is None:
            # HybridJobs that waited for this type.
            for name, hybridjob in self._cache.hybridjobs.items():
                if hybridjob["spec"]["type"] == job_type.spec.type:
                    self._queue.add(name)
        await self._say(body, "True", "Mirrored", "jobs of this type are accepted")

    async def _say(self, body: Object, status: str, reason: str, message: str) -> None:
        metadata = body["metadata"]
        for each in (body.get("status") or {}).get("conditions") or []:
            if (each["type"], each["status"], each.get("observedGeneration")) == (
                "Accepted",
                status,
                metadata["generation"],
            ):
                return
        now = time_text(datetime.now(UTC))
        condition = {
            "type": "Accepted",
            "status": status,
            "reason": reason,
            "message": message,
            "observedGeneration": metadata["generation"],
            "lastTransitionTime": now,
        }
        try:
            await self._kubernetes.patch(
                HYBRIDJOB_TYPES,
                self._namespace,
                metadata["name"],
                {
                    "status": {
                        "observedGeneration": metadata["generation"],
                        "conditions": [condition],
                    }
                },
                subresource="status",
            )
        except NotFound:
            return
