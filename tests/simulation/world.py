"""Everything together, and the order of what happens: a random number decides each next step."""

import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from random import Random
from unittest.mock import patch

import structlog

from hybridjobs import policy
from hybridjobs.controller import sweep
from hybridjobs.dispatch import loop as dispatch_loop
from hybridjobs.kube.client import HYBRIDJOB_TYPES, HYBRIDJOBS, JOBS, PODS
from tests.simulation.checks import Checks, Violation
from tests.simulation.cluster import WATCHED, ApiServer, Deed, Object
from tests.simulation.deeds import People, trouble_of_queues, trouble_of_work
from tests.simulation.definitions import Administrator
from tests.simulation.fleet import Fleet
from tests.simulation.job_controller import JobController
from tests.simulation.nodes import Nodes
from tests.simulation.processes import Request, Way
from tests.simulation.refusals import Refusals
from tests.simulation.stores import InMemory, Store
from tests.simulation.virtual import Loop, clock_of

_MAX_CALM_STEPS = 20_000
_MAX_DRAIN_SECONDS = 6 * 3600
_POLL_SECONDS = 20.0
_SEEN_WITHIN_SECONDS = 200  # two sweeps, and what a pod has to end


class World:
    """One run. `steps` counts what has happened, `deeds` what people and trouble did."""

    def __init__(
        self,
        random: Random,
        make_store: Callable[[Callable[[], datetime]], Store] = InMemory,
    ) -> None:
        self._random = random
        self.loop = Loop()
        self._server = ApiServer(self.loop.now)
        self._nodes = Nodes(self._server, self.loop.now, random)
        self._jobs = JobController(self._server, self.loop.now, self._nodes, random)
        self.store = make_store(self.loop.now)
        self._refusals = Refusals(random, self._server, self.loop.now)
        self.checks = Checks(self._server, self._nodes, self.store, self._refusals, self.loop.now)
        self.fleet = Fleet(random, self.loop, self._server, self._nodes, self.store, self.checks)
        self._away: set[str] = set()
        self._administrator = Administrator(random, self._server)
        self._people = People(
            random, self._server, self._nodes, self.store, self.checks, self._administrator.types
        )
        self._max_deeds = random.choice([4, 8, 16])  # of people
        self._troubles = self._some_troubles()
        self._people_did = 0
        self._attempts_before = 0  # those of before each restore
        self._bring_back: Callable[[], None] | None = None  # the database, as it was backed up
        self.steps = 0
        self.deeds = 0
        self.trace: deque[str] = deque(maxlen=100_000)

    def run(self, steps: int) -> None:
        """Chaos for so many steps, then peace until all is over; Violation."""
        with self._set_up():
            self.fleet.begin()
            for _ in range(self._random.choice([1, 2, 3])):
                self._people.submit()
            while self.steps < steps:
                self._step()
            self._drain()
            self.fleet.stop()

    @contextmanager
    def at_peace(self) -> Iterator[ApiServer]:
        """One operator that leads, a job that waits, and nothing that goes wrong."""
        with self._set_up():
            self.fleet.begin(operators=1, dispatchers=0)
            self.calm()
            self._people.submit()
            yield self._server
            self.fleet.stop()

    @contextmanager
    def _set_up(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(clock_of(self.loop))
            stack.enter_context(_logs_to(self.loop.errors))
            stack.enter_context(patch.object(sweep, "random", self._random))
            stack.enter_context(patch.object(policy, "jitter", self._random.random))
            stack.enter_context(patch.object(dispatch_loop, "_POLL_SECONDS", _POLL_SECONDS))
            yield

    # Steps

    def _step(self) -> None:
        dice = self._random.randrange(100)
        if dice < 42:
            happened = self._answer_any()
        elif dice < 65:
            happened = self._tell_any()
        elif dice < 88:
            happened = self._kubernetes_does()
        elif dice < 92:
            happened = self._time_passes()
        elif dice < 95:
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

    def _answer_any(self) -> bool:
        requests = self.fleet.requests()
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
        self.answer(request, way)
        return True

    def answer(self, request: Request, way: Way = "well") -> None:
        """Its turn has come."""
        self._note(request.process.name, request.what, "" if way == "well" else way)
        request.process.requests.remove(request)
        request.future.set_result(way)
        self.loop.settle()

    def _tell_any(self) -> bool:
        able = [each for each in self.fleet.operators if each.watch.order]
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
            (body, steps)
            for kind in (HYBRIDJOBS.plural, JOBS.plural, PODS.plural)
            for body in self._server.list(kind)
            if (steps := self._steps(kind, body))
        ]
        if not able:
            return False
        body, steps = able[self._random.randrange(len(able))]
        self._do(body, *steps[self._random.randrange(len(steps))])
        return True

    def _steps(self, kind: str, body: Object) -> list[Deed]:
        return self._nodes.steps(body) if kind == PODS.plural else self._jobs.steps(kind, body)

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

    def _something_is_done(self, deeds: list[Deed], who: str) -> bool:
        if not deeds:
            return False
        what, act = deeds[self._random.randrange(len(deeds))]
        self.deeds += 1
        self._note(who, what)
        act()
        return True

    def _people_do(self) -> bool:
        if self._people_did >= self._max_deeds:
            return False
        self._people_did += 1
        deeds = [*self._people.deeds(), *self._administrator.deeds()]
        return self._something_is_done(deeds, "PEOPLE")

    def _trouble_comes(self) -> bool:
        """Of one kind of those that this run has: some are rare beside others."""
        kind = self._random.choice(self._troubles)
        return self._something_is_done([*kind()], "TROUBLE")

    def _some_troubles(self) -> list[Callable[[], Iterable[Deed]]]:
        """What goes wrong in this run: of some kinds more than of all of them at once."""
        kinds: list[Callable[[], Iterable[Deed]]] = [
            self.fleet.trouble,
            self._trouble_of_dependencies,
            lambda: trouble_of_work(self._server, self._nodes),
            lambda: trouble_of_queues(self._server, self._nodes),
            self._trouble_of_hybridjobs,
            lambda: self._refusals.trouble(self.store.rows()[0]),
            self._trouble_of_rows,
        ]
        return self._random.sample(kinds, self._random.choice([1, 2, 3, 4, len(kinds)]))

    def _trouble_of_dependencies(self) -> Iterator[Deed]:
        for each in ("database", "cluster"):
            if each in self._away:
                yield f"{each} is back", partial(self._away.discard, each)
            elif not self._away:
                yield f"{each} is away", partial(self._away.add, each)

    def _trouble_of_hybridjobs(self) -> Iterator[Deed]:
        """They vanish, as from a cluster that was restored, or by hand while no operator runs."""
        for body in self._server.list(HYBRIDJOBS.plural):
            name, unseen = body["metadata"]["name"], self.fleet.unseen
            vanish = partial(self._server.remove, HYBRIDJOBS.plural, name)
            yield f"{name} vanishes unseen", partial(unseen, vanish)
            orphan = partial(self._people.orphan, body)
            yield f"{name} vanishes unseen, not its Jobs", partial(unseen, orphan)

    def _trouble_of_rows(self) -> Iterator[Deed]:
        yield "the database is backed up", self._back_up
        if self._bring_back is not None:
            yield "the database is restored", self._restore

    def _back_up(self) -> None:
        self._bring_back = self.store.backup()

    def _restore(self) -> None:
        """While nothing of ours runs, as docs/operations/day-two.md has it."""
        assert self._bring_back is not None
        self.fleet.stop()
        self._attempts_before += len(self.store.rows()[1])
        self._bring_back()
        self.checks.on_restore()
        self.fleet.begin()

    # Peace

    def _drain(self) -> None:
        """No more trouble, though lost nodes stay lost; then they are back; then nothing moves."""
        self._note("PEACE")
        self._away.clear()
        self._administrator.bring_back()
        self.fleet.pacify()
        self.checks.on_peace()
        self._bear_refusals()
        self.wait(_SEEN_WITHIN_SECONDS)
        if late := self.checks.uncancelled():
            raise Violation(f"not cancelled: {', '.join(late)}")
        if late := self.checks.unended():
            raise Violation(f"not ended, though its pod is gone: {', '.join(late)}")
        self._until(self.checks.unfinished, "never ended")
        self._nodes.find()
        self._until(self.checks.unfinished, "never ended")
        self._until(self.checks.left, "left in the cluster")
        self._check_types()
        self._check_writes()
        if self.checks.may_leave_late:
            self.wait(300)
        self._check_rest()

    def _bear_refusals(self) -> None:
        """For seconds or minutes, and nothing else goes wrong; then they are lifted."""
        if self._random.randrange(3) == 0:
            self._people.submit()
            self._refusals.begin()
        if not self._refusals.in_force:
            return
        self.wait(self._random.choice([30, 400]))
        is_quota = self._refusals.is_quota_of_jobs
        self._refusals.lift()
        self.wait(10)
        if is_quota and (late := self.checks.jobless()):
            raise Violation(f"not made, though they are accepted: {', '.join(late)}")

    def _check_types(self) -> None:
        """Watches tell of a change at once, and a sweep of one that they have missed."""
        self._until(self._not_mirrored, "types not mirrored")
        self._something_is_done([*self._administrator.deeds()], "ADMINISTRATOR")
        self.calm()
        if late := self._not_mirrored():
            raise Violation(f"types not mirrored at once: {', '.join(late)}")
        for operator in self.fleet.operators:
            operator.watch.interrupt(HYBRIDJOB_TYPES.plural)
        self._something_is_done([*self._administrator.deeds()], "ADMINISTRATOR")
        self._until(self._not_mirrored, "types not mirrored by a sweep")

    def _not_mirrored(self) -> list[str]:
        """Types that the database has otherwise than the cluster, or whoever leads."""
        there = {
            (body["spec"]["type"], body["metadata"]["uid"], body["metadata"]["generation"])
            for body in self._server.list(HYBRIDJOB_TYPES.plural)
        }
        known = [self.store.types()]
        for operator in self.fleet.operators:
            if operator.leads:
                types = operator.cache.types.items()
                known.append({(type_, each.uid, each.generation) for type_, each in types})
        return sorted({type_ for each in known for type_, *_ in each ^ there})

    def _until(self, left: Callable[[], list[str]], complaint: str) -> None:
        end = self.loop.time() + _MAX_DRAIN_SECONDS
        self.calm()
        while rest := left():
            timer = self.loop.next_timer()
            if timer is None or timer > end:
                raise Violation(f"{complaint}: {', '.join(rest)}")
            self.loop.advance(timer)
            self.calm()

    def wait(self, seconds: float) -> None:
        """Let time pass, in which nothing goes wrong."""
        end = self.loop.time() + seconds
        self.calm()
        while (timer := self.loop.next_timer()) is not None and timer <= end:
            self.loop.advance(timer)
            self.calm()

    def calm(self) -> None:
        """Until nothing happens without time passing."""
        for _ in range(_MAX_CALM_STEPS):
            if not (self._answer_first() or self._tell_first() or self._kubernetes_does_first()):
                return
            self._look()
        raise Violation("it never comes to rest")

    def _answer_first(self) -> bool:
        for request in self.fleet.requests():
            self.answer(request)
            return True
        return False

    def _tell_first(self) -> bool:
        for operator in self.fleet.operators:
            if operator.watch.order:
                self._note(operator.name, "is told", operator.watch.deliver(0))
                self.loop.settle()
                return True
        return False

    def _kubernetes_does_first(self) -> bool:
        for kind in WATCHED:
            for body in self._server.list(kind):
                for what, act in self._steps(kind, body):
                    self._do(body, what, act)
                    return True
        return False

    def _check_writes(self) -> None:
        """Five writes an attempt, and some for each disturbance."""
        _, ended = self.store.rows()
        bound = 6 * (len(ended) + self._attempts_before) + 4 * self.deeds + 20
        if self.fleet.writes > bound:
            raise Violation(f"{self.fleet.writes} writes; at most {bound} are in order")

    def _check_rest(self) -> None:
        """All is over and gone: whatever is written now would be written for ever."""
        self.fleet.forget_writes()
        self.wait(300)
        written = [each for process in self.fleet.all() for each in process.kubernetes.writes]
        if written:
            raise Violation(f"written after the end: {', '.join(written)}")


@contextmanager
def _logs_to(errors: list[str]) -> Iterator[None]:
    """Nothing is logged, but what nobody has foreseen is an error."""

    def keep(_logger: object, method: str, event: structlog.typing.EventDict) -> str:
        if method == "exception" or event.get("exc_info"):
            errors.append(traceback.format_exc())
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[keep], wrapper_class=structlog.BoundLogger)
    try:
        yield
    finally:
        structlog.configure(**before)
