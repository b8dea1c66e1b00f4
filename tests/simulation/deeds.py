"""What people, workers and bad luck do, each at any moment."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

from hybridjobs.controller.observe import is_finished
from hybridjobs.errors import AttemptClosed
from hybridjobs.ids import derived_id
from hybridjobs.kube.client import HYBRIDJOBS, JOBS, PODS
from hybridjobs.model import AttemptEnd, JobType, NewJob, Outcome
from hybridjobs.store import attempts, outcome
from hybridjobs.store.enqueue import insert_jobs
from hybridjobs.store.jobs import _RETRY
from hybridjobs.store.outcome import record_outcome
from tests.simulation.checks import TERMINAL, Checks
from tests.simulation.cluster import ApiServer, Deed, Object, owner_uid
from tests.simulation.job_controller import suspend
from tests.simulation.nodes import Nodes
from tests.simulation.processes import NAMESPACE, StoreConnection
from tests.simulation.stores import Store
from tests.simulation.tables import SET_BY_HAND
from tests.simulation.virtual import EPOCH, at_once

_MAX_JOBS = 4


class People:
    """Those who submit, cancel, delete and retry; and what workers report by the API."""

    def __init__(
        self,
        random: Random,
        server: ApiServer,
        nodes: Nodes,
        store: Store,
        checks: Checks,
        types: Sequence[JobType],
    ) -> None:
        self._random = random
        self._types = types
        self._server = server
        self._nodes = nodes
        self._store = store
        self._checks = checks
        self._made = 0
        self._names: set[str] = set()  # of what was made by hand

    def deeds(self) -> list[Deed]:
        """All that may be done now."""
        deeds = [*self._on_jobs(), *self._on_objects(), *self._reports()]
        if len(self._store.rows()[0]) < _MAX_JOBS:
            deeds += [("submit", self.submit)] * 6 + [("make by hand", self._make_by_hand)] * 2
            deeds += [*self._again(), *self._copies()]
        return deeds

    def submit(self) -> None:
        """A job by the API."""
        spec = self._random.choice(self._types).spec
        self._made += 1
        job = NewJob(
            id=derived_id(f"job {self._made}", EPOCH),
            type=spec.type,
            payload="{}",
            source="api",
            max_retries=spec.retry.limit,
            deadline_seconds=spec.deadline_seconds,
        )
        at_once(insert_jobs(self._connection(), [job]))

    def _make_by_hand(self) -> None:
        self._made += 1
        self._make(f"hand-{self._made}")

    def _spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = {"type": self._random.choice(self._types).spec.type}
        if self._random.randrange(2):
            spec["ttlSecondsAfterFinished"] = 30
        if self._random.randrange(8) == 0:
            spec["cancel"] = True
        return spec

    def _make(self, name: str, spec: dict[str, Any] | None = None) -> None:
        body = {
            "apiVersion": "hybridjobs.dev/v1alpha1",
            "kind": "HybridJob",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": spec or self._spec(),
        }
        self._checks.on_made(self._server.create(HYBRIDJOBS.plural, body))
        self._names.add(name)

    def _again(self) -> Iterator[Deed]:
        """What is gone is made anew under its name, as a repository is applied again and again."""
        for name in sorted(self._names - self._server.objects[HYBRIDJOBS.plural].keys()):
            yield f"make {name} again", partial(self._make, name)

    def _copies(self) -> Iterator[Deed]:
        """`kubectl get -o yaml`, renamed and applied, where no policy forbids a jobId."""
        for body in self._server.list(HYBRIDJOBS.plural):
            name = f"{body['metadata']['name']}-copy"
            if name not in self._server.objects[HYBRIDJOBS.plural]:
                yield f"make {name}", partial(self._make, name, body["spec"])

    def _on_jobs(self) -> Iterator[Deed]:
        for job in self._store.rows()[0].values():
            job_id = job["id"]
            if job["status"] in TERMINAL:
                yield f"retry {job_id}", partial(self._by_hand, job_id, _RETRY, [job_id])
                yield f"set {job_id} queued", partial(self._set, job_id, "queued")
                continue
            if job["status"] == "processing":
                yield f"set {job_id} queued", partial(self._set, job_id, "queued")
            yield f"cancel {job_id}", partial(self._cancel, job_id)
            for status in TERMINAL:
                if self._random.randrange(4) == 0:
                    yield f"set {job_id} {status}", partial(self._set, job_id, status)

    def _cancel(self, job_id: UUID) -> None:
        self._checks.on_cancel(job_id)
        self._store.execute(outcome._CANCEL, [job_id, "Cancelled"])

    def _set(self, job_id: UUID, status: str) -> None:
        if status == "cancelled":
            self._checks.on_cancel(job_id)
        self._by_hand(job_id, SET_BY_HAND, {"id": job_id, "status": status})

    def _by_hand(self, job_id: UUID, statement: str, given: object) -> None:
        self._checks.on_moved(job_id)
        self._store.execute(statement, given)

    def _on_objects(self) -> Iterator[Deed]:
        server = self._server
        for body in server.list(HYBRIDJOBS.plural):
            place = HYBRIDJOBS.plural, body["metadata"]["name"]
            cancel = {"spec": {"cancel": True}}
            ways: list[Deed] = [
                ("cancel {}", partial(server.patch, *place, cancel, "")),
                ("delete {}", partial(server.delete, *place)),
                ("delete {} in the foreground", partial(server.mark_deleted, *place)),
                ("delete {}, not its Jobs", partial(self.orphan, body)),
            ]
            for what, act in ways:
                yield what.format(place[1]), partial(self._unwanted, body, act)
        for kind in (JOBS.plural, PODS.plural):
            for body in server.list(kind):
                name = body["metadata"]["name"]
                yield f"delete {name}", partial(server.delete, kind, name)
                if kind == PODS.plural:
                    yield f"delete {name} by force", partial(self._nodes.force, body)

    def _unwanted(self, hybridjob: Object, act: Callable[[], object]) -> None:
        self._checks.on_unwanted(hybridjob)
        act()

    def orphan(self, hybridjob: Object) -> None:
        """A deletion that lets go of the Jobs."""
        self._server.mark_deleted(HYBRIDJOBS.plural, hybridjob["metadata"]["name"])
        for job in self._server.list(JOBS.plural):
            if owner_uid(job) == hybridjob["metadata"]["uid"]:
                metadata = {**job["metadata"], "ownerReferences": []}
                self._server.replace(JOBS.plural, {**job, "metadata": metadata})
        self._server.delete(HYBRIDJOBS.plural, hybridjob["metadata"]["name"])

    def _reports(self) -> Iterator[Deed]:
        for container in self._nodes.containers.values():
            if not container.runs:
                continue
            key = container.job_id, container.attempt
            for end in (
                AttemptEnd(Outcome.SUCCEEDED, "Completed", result="{}"),
                AttemptEnd(Outcome.PERMANENT, "PermanentError", "never"),
            ):
                yield f"{container.pod}: {end.reason}", partial(self._report, key, end)
            yield f"{container.pod}: an error", partial(self._report_error, key)

    def _report(self, key: tuple[UUID, int], end: AttemptEnd) -> None:
        self._checks.reported.add(key)
        with self._store.transaction():
            at_once(record_outcome(self._connection(), *key, end))

    def _report_error(self, key: tuple[UUID, int]) -> None:
        report = attempts.report_failure(
            self._connection(), *key, error="no", permanent=False, retry_after_seconds=None
        )
        try:
            at_once(report)
        except AttemptClosed:
            return

    def _connection(self) -> Any:
        return StoreConnection(self._store, None)


def trouble_of_queues(server: ApiServer, nodes: Nodes) -> Iterator[Deed]:
    """What runs is suspended rather than what does not."""
    for job in server.list(JOBS.plural):
        if not is_finished(job) and not job["spec"].get("suspend"):
            uid = job["metadata"]["uid"]
            begun = any(
                nodes.container(pod).runs
                for pod in server.list(PODS.plural)
                if owner_uid(pod) == uid
            )
            deed = f"suspend {job['metadata']['name']}", partial(suspend, server, job)
            yield from [deed] * (5 if begun else 1)


def trouble_of_work(server: ApiServer, nodes: Nodes) -> Iterator[Deed]:
    """What befalls pods and their nodes."""
    for pod in server.list(PODS.plural):
        name = pod["metadata"]["name"]
        yield f"disrupt {name}", partial(nodes.disrupt, pod)
        yield f"too much memory: {name}", partial(nodes.kill_by_memory, pod)
        yield f"lose the node of {name}", partial(nodes.lose, pod)
    if any(each.is_lost for each in nodes.containers.values()):
        yield "nodes are back", nodes.find
