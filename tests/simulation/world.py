"""Everything together, and the order of what happens: a random number decides each next step."""

from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from random import Random
from typing import Any
from unittest.mock import patch
from uuid import UUID

import structlog

from hybridjobs import policy
from hybridjobs.controller.observe import is_finished
from hybridjobs.dispatch import loop as dispatch_loop
from hybridjobs.errors import AttemptClosed
from hybridjobs.ids import derived_id
from hybridjobs.kube import names
from hybridjobs.kube.client import HYBRIDJOBS, JOBS, PODS
from hybridjobs.model import AttemptEnd, JobType, NewJob, Outcome
from hybridjobs.store import attempts, outcome
from hybridjobs.store.enqueue import insert_jobs
from hybridjobs.store.jobs import _RETRY
from hybridjobs.store.outcome import record_outcome
from tests.builders import job_type
from tests.simulation.checks import TERMINAL, Checks, Violation
from tests.simulation.cluster import WATCHED, ApiServer, Object, owner_uid
from tests.simulation.nodes import Nodes
from tests.simulation.processes import (
    NAMESPACE,
    DispatcherProcess,
    OperatorProcess,
    Process,
    Request,
    StoreConnection,
    Way,
)
from tests.simulation.stores import InMemory, Store
from tests.simulation.tables import SET_BY_HAND
from tests.simulation.virtual import Loop, clock_of

_TIMES: dict[str, Any] = {
    "deadlineSeconds": 30,
    "startDeadlineSeconds": 20,
    "gracePeriodSeconds": 5,
}
_RETRY_SPEC: dict[str, Any] = {"limit": 2, "baseSeconds": 5, "maxSeconds": 20}
TYPES = [
    job_type("sim/plain", retry=_RETRY_SPEC, **_TIMES),
    job_type("sim/again", retry={**_RETRY_SPEC, "onDeadline": "Retry", "onOOM": "Retry"}, **_TIMES),
    job_type("sim/alone", retry={**_RETRY_SPEC, "overlap": "Forbid"}, **_TIMES),
]
_MAX_JOBS = 4
_MAX_DEEDS = 16  # of people, a run
_MAX_CALM_STEPS = 20_000
_MAX_DRAIN_SECONDS = 6 * 3600
_POLL_SECONDS = 10.0

Deed = tuple[str, Callable[[], object]]


class World:
    """One run. `steps` counts what has happened, `deeds` what people and trouble did."""

    def __init__(
        self,
        random: Random,
        make_store: Callable[[Callable[[], datetime]], Store] | None = None,
    ) -> None:
        self._random = random
        self.loop = Loop()
        self._server = ApiServer(self.loop.now)
        self._nodes = Nodes(self._server, self.loop.now, random)
        types = {each.spec.type: each for each in TYPES}
        self.store: Store = (
            InMemory(self.loop.now, types) if make_store is None else make_store(self.loop.now)
        )
        self.checks = Checks(self._server, self._nodes, self.store)
        self._count = 0
        self._operators: list[OperatorProcess] = []
        self._dispatchers: list[DispatcherProcess] = []
        self._away: set[str] = set()
        self._faults = True
        self._people = 0
        self.writes = 0
        self.steps = 0
        self.deeds = 0
        self.trace: deque[str] = deque(maxlen=100_000)

    def run(self, steps: int) -> None:
        """Chaos for so many steps, then peace until all is over; Violation."""
        with self._set_up():
            for _ in range(2):
                self._operators.append(self._operator())
                self._dispatchers.append(self._dispatcher())
            self._elect()
            self._submit()
            while self.steps < steps:
                self._step()
            self._drain()
            for process in self._processes():
                process.stop()

    @contextmanager
    def _set_up(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(clock_of(self.loop))
            stack.enter_context(_logs_to(self.loop.errors))
            stack.enter_context(patch.object(policy, "jitter", self._random.random))
            stack.enter_context(patch.object(dispatch_loop, "_POLL_SECONDS", _POLL_SECONDS))
            yield

    # Processes

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._count}"

    def _operator(self) -> OperatorProcess:
        process = OperatorProcess(
            self._name("operator"), self.loop, self._server, self.store, self._nodes, TYPES
        )
        process.kubernetes.deleting = self.checks.on_delete
        return process

    def _dispatcher(self) -> DispatcherProcess:
        process = DispatcherProcess(
            self._name("dispatcher"), self.loop, self._server, self.store, self._nodes
        )
        process.kubernetes.deleting = self.checks.on_delete
        return process

    def _processes(self) -> list[OperatorProcess | DispatcherProcess]:
        return [*self._operators, *self._dispatchers]

    def _elect(self) -> None:
        """Somebody leads who can; a leader that is paused does not know that it is deposed."""
        able = [each for each in self._operators if not each.paused]
        if able and not any(each.leads for each in able):
            self._random.choice(able).lead()

    def _restart(self, place: int) -> None:
        operator = self._operators[place]
        self._end(operator)
        self._operators[place] = self._operator()
        self._elect()

    def _restart_dispatcher(self, place: int) -> None:
        self._end(self._dispatchers[place])
        self._dispatchers[place] = self._dispatcher()

    def _end(self, process: OperatorProcess | DispatcherProcess) -> None:
        process.stop()
        self.writes += len(process.kubernetes.writes)

    # Steps

    def _step(self) -> None:
        dice = self._random.randrange(100)
        if dice < 42:
            happened = self._answer_any()
        elif dice < 65:
            happened = self._tell_any()
        elif dice < 87:
            happened = self._kubernetes_does()
        elif dice < 93:
            happened = self._time_passes()
        elif dice < 97:
            happened = self._people_do()
        else:
            happened = self._trouble_comes()
        if not happened and not self._answer_any() and not self._tell_any():
            self._time_passes()
        self._look()

    def _look(self) -> None:
        self.steps += 1
        self.loop.settle()
        self.checks.look()
        if self.loop.errors:
            raise Violation(self.loop.errors[0])

    def _note(self, *words: object) -> None:
        self.trace.append(f"{self.loop.time():9.2f} " + " ".join(map(str, words)))

    def _requests(self) -> list[Request]:
        return [
            request
            for process in self._processes()
            if not process.paused
            for request in process.requests
        ]

    def _answer_any(self) -> bool:
        requests = self._requests()
        if not requests:
            return False
        request = requests[self._random.randrange(len(requests))]
        way: Way = "well"
        if request.dependency in self._away:
            way = "refused"
        else:
            dice = self._random.randrange(100)
            if dice >= 88:
                way = "late" if dice < 95 else "unanswered" if dice < 98 else "refused"
        self._answer(request, way)
        return True

    def _answer(self, request: Request, way: Way) -> None:
        self._note(request.process.name, request.what, "" if way == "well" else way)
        request.process.requests.remove(request)
        request.future.set_result(way)
        self.loop.settle()

    def _tell_any(self) -> bool:
        able = [each for each in self._operators if each.watch.order]
        if not able:
            return False
        operator = able[self._random.randrange(len(able))]
        place = self._random.randrange(len(operator.watch.order))
        told = operator.watch.deliver(place, self._random.choice([0, 0, 1, 9]))
        self._note(operator.name, "is told", told)
        self.loop.settle()
        return True

    def _kubernetes_does(self) -> bool:
        able = [
            (kind, body)
            for kind in WATCHED
            for body in self._server.list(kind)
            if kind != HYBRIDJOBS.plural or "deletionTimestamp" in body["metadata"]
        ]
        if not able:
            return False
        kind, body = able[self._random.randrange(len(able))]
        steps = self._nodes.steps(kind, body)
        if not steps:
            return False
        self._do(body, *steps[self._random.randrange(len(steps))])
        return True

    def _do(self, body: Object, what: str, act: Callable[[], object]) -> None:
        self._note(body["metadata"]["name"], what)
        act()

    def _time_passes(self) -> bool:
        now, dice = self.loop.time(), self._random.randrange(20)
        timer = self.loop.next_timer()
        if dice < 10 and timer is not None:
            to = max(timer, now)
        elif dice < 19:
            to = now + self._random.choice([0.2, 1.0, 3.0])
        else:
            to = now + self._random.choice([20.0, 60.0, 200.0])
        self.loop.advance(to)
        return True

    # People

    def _people_do(self) -> bool:
        if self._people >= _MAX_DEEDS:
            return False
        deeds = [*self._deeds_on_jobs(), *self._deeds_on_objects(), *self._workers_report()]
        if len(self.store.rows()[0]) < _MAX_JOBS:
            deeds += [("submit", self._submit)] * 6 + [("make by hand", self._make_by_hand)] * 2
        if not deeds:
            return False
        what, act = deeds[self._random.randrange(len(deeds))]
        self._people += 1
        self.deeds += 1
        self._note("PEOPLE", what)
        act()
        return True

    def _id(self) -> UUID:
        self._count += 1
        return derived_id(f"job {self._count}", self.loop.now())

    def _submit(self) -> None:
        spec = TYPES[self._random.randrange(len(TYPES))].spec
        job = NewJob(
            id=self._id(),
            type=spec.type,
            payload="{}",
            source="api",
            max_retries=spec.retry.limit,
            deadline_seconds=spec.deadline_seconds,
        )
        self._at_once(insert_jobs(self._connection(), [job]))

    def _make_by_hand(self) -> None:
        spec: dict[str, Any] = {"type": TYPES[self._random.randrange(len(TYPES))].spec.type}
        if self._random.randrange(2):
            spec["ttlSecondsAfterFinished"] = 30
        self._count += 1
        metadata = {"name": f"hand-{self._count}", "namespace": NAMESPACE}
        kind = {"apiVersion": "hybridjobs.dev/v1alpha1", "kind": "HybridJob"}
        self._server.create(HYBRIDJOBS.plural, {**kind, "metadata": metadata, "spec": spec})

    def _deeds_on_jobs(self) -> Iterator[Deed]:
        for job in self.store.rows()[0].values():
            job_id, status = job["id"], job["status"]
            if status in TERMINAL:
                yield f"retry {job_id}", lambda job_id=job_id: self._retry(job_id)
                yield f"requeue {job_id}", lambda job_id=job_id: self._set(job_id, "queued")
            else:
                yield (
                    f"cancel {job_id}",
                    lambda job_id=job_id: self.store.execute(
                        outcome._CANCEL, [job_id, "Cancelled"]
                    ),
                )
                for new in TERMINAL:
                    if self._random.randrange(4) == 0:
                        yield (
                            f"set {job_id} {new}",
                            lambda job_id=job_id, new=new: self._set(job_id, new),
                        )

    def _retry(self, job_id: UUID) -> None:
        self.checks.told_by_hand.add(job_id)
        self.checks.by_hand[job_id] += 1
        self.store.execute(_RETRY, [job_id])

    def _set(self, job_id: UUID, status: str) -> None:
        self.checks.told_by_hand.add(job_id)
        self.checks.by_hand[job_id] += 1
        self.store.execute(SET_BY_HAND, {"id": job_id, "status": status})

    def _deeds_on_objects(self) -> Iterator[Deed]:
        server = self._server
        for body in server.list(HYBRIDJOBS.plural):
            name = body["metadata"]["name"]
            kind = HYBRIDJOBS.plural
            patch = {"spec": {"cancel": True}}
            yield f"cancel {name}", lambda n=name, k=kind: server.patch(k, n, patch, "")
            yield f"delete {name}", lambda n=name, k=kind: server.delete(k, n)
            yield (
                f"delete {name} in the foreground",
                lambda n=name, k=kind: server.mark_deleted(k, n),
            )
            yield f"delete {name}, not its Jobs", lambda body=body: self._orphan(body)
        for body in server.list(JOBS.plural):
            name = body["metadata"]["name"]
            yield f"delete {name}", lambda n=name: server.delete(JOBS.plural, n)
        for body in server.list(PODS.plural):
            name = body["metadata"]["name"]
            yield f"delete {name}", lambda n=name: server.delete(PODS.plural, n)
            yield f"delete {name} by force", lambda body=body: self._nodes.force(body)

    def _orphan(self, hybridjob: Object) -> None:
        self._server.mark_deleted(HYBRIDJOBS.plural, hybridjob["metadata"]["name"])
        for job in self._server.list(JOBS.plural):
            if owner_uid(job) == hybridjob["metadata"]["uid"]:
                metadata = {**job["metadata"], "ownerReferences": []}
                self._server.replace(JOBS.plural, {**job, "metadata": metadata})
        self._server.delete(HYBRIDJOBS.plural, hybridjob["metadata"]["name"])

    def _workers_report(self) -> Iterator[Deed]:
        for container in self._nodes.containers.values():
            if container.runs:
                key = container.job_id, container.attempt
                for end in (
                    AttemptEnd(Outcome.SUCCEEDED, "Completed", result="{}"),
                    AttemptEnd(Outcome.PERMANENT, "PermanentError", "never"),
                    None,
                ):
                    yield (
                        f"{container.pod} reports",
                        lambda key=key, end=end: self._report(key, end),
                    )

    def _report(self, key: tuple[UUID, int], end: AttemptEnd | None) -> None:
        if end is not None:
            self.checks.reported.add(key)
            with self.store.transaction():
                self._at_once(record_outcome(self._connection(), *key, end))
            return
        report = attempts.report_failure(
            self._connection(), *key, error="no", permanent=False, retry_after_seconds=None
        )
        try:
            self._at_once(report)
        except AttemptClosed:
            return

    def _connection(self) -> Any:
        return StoreConnection(self.store, None)

    def _at_once(self, work: Coroutine[Any, Any, object]) -> None:
        try:
            work.send(None)
        except StopIteration:
            return
        raise RuntimeError("nothing here waits")

    # Trouble

    def _trouble_comes(self) -> bool:
        troubles: list[Deed] = [
            *self._trouble_of_processes(),
            *self._trouble_of_watches(),
            *self._trouble_of_pods(),
        ]
        for each in ("database", "cluster"):
            if each in self._away:
                troubles += [(f"{each} is back", lambda each=each: self._away.discard(each))] * 4
            else:
                troubles.append((f"{each} is away", lambda each=each: self._away.add(each)))
        what, act = troubles[self._random.randrange(len(troubles))]
        self.deeds += 1
        self._note("TROUBLE", what)
        act()
        return True

    def _trouble_of_processes(self) -> Iterator[Deed]:
        for place, operator in enumerate(self._operators):
            yield f"kill {operator.name}", lambda place=place: self._restart(place)
            yield from self._pauses(operator)
        for place, dispatcher in enumerate(self._dispatchers):
            yield f"kill {dispatcher.name}", lambda place=place: self._restart_dispatcher(place)
            yield from self._pauses(dispatcher)

    def _pauses(self, process: Process) -> Iterator[Deed]:
        def turn() -> None:
            process.paused = not process.paused
            self._elect()

        for _ in range(3 if process.paused else 1):
            yield f"{'wake' if process.paused else 'pause'} {process.name}", turn

    def _trouble_of_watches(self) -> Iterator[Deed]:
        for operator in self._operators:
            for kind in WATCHED:
                if kind in operator.watch.interrupted:
                    act = operator.watch.resume
                    yield from [(f"{operator.name} lists {kind}", lambda k=kind, a=act: a(k))] * 3
                else:
                    act = operator.watch.interrupt
                    yield f"{operator.name} loses {kind}", lambda k=kind, a=act: a(k)

    def _trouble_of_pods(self) -> Iterator[Deed]:
        nodes = self._nodes
        for pod in self._server.list(PODS.plural):
            name = pod["metadata"]["name"]
            for what, act in (
                ("disrupt", nodes.disrupt),
                ("too much memory:", nodes.kill_by_memory),
                ("lose the node of", nodes.lose),
            ):
                yield f"{what} {name}", lambda pod=pod, act=act: act(pod)
        if any(each.is_lost for each in nodes.containers.values()):
            yield "nodes are back", nodes.find

    # Peace

    def _drain(self) -> None:
        """No more trouble, but that lost nodes stay lost; then they are back; then nothing moves."""
        self._note("PEACE")
        self._away.clear()
        for place, operator in enumerate(self._operators):
            if operator.paused or operator.leads:
                operator.paused = False
                self._end(operator)
                self._operators[place] = self._operator()
        for operator in self._operators:
            for kind in list(operator.watch.interrupted):
                operator.watch.resume(kind)
        for dispatcher in self._dispatchers:
            dispatcher.paused = False
        self._elect()
        self._until(lambda: self._unfinished(lost_nodes=True), "never ended")
        self._nodes.find()
        self._until(lambda: self._unfinished(lost_nodes=False), "never ended")
        self._until(self._left, "left in the cluster")
        self._check_writes()
        self._check_rest()

    def _until(self, left: Callable[[], list[str]], complaint: str) -> None:
        end = self.loop.time() + _MAX_DRAIN_SECONDS
        self._calm()
        while rest := left():
            timer = self.loop.next_timer()
            if timer is None or timer > end:
                raise Violation(f"{complaint}: {', '.join(rest)}")
            self.loop.advance(timer)
            self._calm()

    def _calm(self) -> None:
        """Until nothing happens without time passing."""
        for _ in range(_MAX_CALM_STEPS):
            if not (self._answer_first() or self._tell_first() or self._kubernetes_does_first()):
                return
            self._look()
        raise Violation("it never comes to rest")

    def _answer_first(self) -> bool:
        for request in self._requests():
            self._answer(request, "well")
            return True
        return False

    def _tell_first(self) -> bool:
        for operator in self._operators:
            if operator.watch.order:
                self._note(operator.name, "is told", operator.watch.deliver(0))
                self.loop.settle()
                return True
        return False

    def _kubernetes_does_first(self) -> bool:
        for kind in WATCHED:
            for body in self._server.list(kind):
                for what, act in self._nodes.steps(kind, body):
                    self._do(body, what, act)
                    return True
        return False

    def _unfinished(self, *, lost_nodes: bool) -> list[str]:
        """Jobs that are not over; those that wait for a lost node may be, where their type says."""
        jobs, _ = self.store.rows()
        waiting = {
            each.job_id for each in self._nodes.containers.values() if each.is_lost and lost_nodes
        }
        return [
            f"{job['id']} {job['status']}"
            for job in jobs.values()
            if job["status"] not in TERMINAL
            and not (job["type"] == "sim/alone" and job["id"] in waiting)
        ]

    def _left(self) -> list[str]:
        """What should be gone: all but what people made and may keep."""
        kept = {
            body["metadata"]["uid"]
            for body in self._server.list(HYBRIDJOBS.plural)
            if not names.is_dispatched(body) and "ttlSecondsAfterFinished" not in body["spec"]
        }
        left = [
            body["metadata"]["name"]
            for body in self._server.list(HYBRIDJOBS.plural)
            if body["metadata"]["uid"] not in kept
        ]
        for job in self._server.list(JOBS.plural):
            if owner_uid(job) in kept and is_finished(job):
                kept.add(job["metadata"]["uid"])
            elif owner_uid(job) is not None or not is_finished(job):
                left.append(job["metadata"]["name"])
            else:
                kept.add(job["metadata"]["uid"])
        left += [
            pod["metadata"]["name"]
            for pod in self._server.list(PODS.plural)
            if owner_uid(pod) not in kept
        ]
        running = [each.pod for each in self._nodes.containers.values() if each.runs]
        return [*left, *running]

    def _all_writes(self) -> int:
        return self.writes + sum(len(each.kubernetes.writes) for each in self._processes())

    def _check_writes(self) -> None:
        """Five writes an attempt, and some for each disturbance."""
        _, ended = self.store.rows()
        bound = 6 * len(ended) + 4 * self.deeds + 20
        if self._all_writes() > bound:
            raise Violation(f"{self._all_writes()} writes; at most {bound} are in order")

    def _check_rest(self) -> None:
        """All is over and gone: whatever is written now would be written for ever."""
        before = self._all_writes()
        end = self.loop.time() + 300
        while (timer := self.loop.next_timer()) is not None and timer <= end:
            self.loop.advance(timer)
            self._calm()
        if self._all_writes() != before:
            raise Violation(f"{self._all_writes() - before} writes after the end")


@contextmanager
def _logs_to(errors: list[str]) -> Iterator[None]:
    """Nothing is logged, but what nobody has foreseen is an error."""

    def keep(_logger: object, method: str, event: structlog.typing.EventDict) -> str:
        if method == "exception" or event.get("exc_info"):
            import traceback

            errors.append(traceback.format_exc())
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[keep], wrapper_class=structlog.BoundLogger)
    try:
        yield
    finally:
        structlog.configure(**before)
