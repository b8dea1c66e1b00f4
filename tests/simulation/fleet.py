"""The programs that run, two of each: who leads, and what befalls them."""

from collections.abc import Callable, Iterator
from functools import partial
from random import Random

from hybridjobs.kube.client import HYBRIDJOBS
from tests.simulation.checks import Checks
from tests.simulation.cluster import WATCHED, ApiServer, Deed
from tests.simulation.nodes import Nodes
from tests.simulation.processes import DispatcherProcess, OperatorProcess, Process, Request
from tests.simulation.stores import Store
from tests.simulation.virtual import Loop


class Fleet:
    """Operators and dispatchers; one that is killed is followed by another in its place."""

    def __init__(
        self,
        random: Random,
        loop: Loop,
        server: ApiServer,
        nodes: Nodes,
        store: Store,
        checks: Checks,
    ) -> None:
        self._random = random
        self._loop = loop
        self._server = server
        self._nodes = nodes
        self._store = store
        self._checks = checks
        self._count = 0
        self._writes = 0  # of those that have ended
        self.operators: list[OperatorProcess] = []
        self._dispatchers: list[DispatcherProcess] = []

    def begin(self, operators: int = 2, dispatchers: int = 2) -> None:
        """So many of each."""
        self.operators += [self._operator() for _ in range(operators)]
        self._dispatchers += [self._dispatcher() for _ in range(dispatchers)]
        self._elect()

    def stop(self) -> None:
        """None is left."""
        for process in self.all():
            self._end(process)
        self.operators.clear()
        self._dispatchers.clear()

    def all(self) -> list[OperatorProcess | DispatcherProcess]:
        """Whoever runs."""
        return [*self.operators, *self._dispatchers]

    def requests(self) -> list[Request]:
        """What they ask for, of whom none is paused."""
        return [
            request for process in self.all() if not process.paused for request in process.requests
        ]

    @property
    def writes(self) -> int:
        """How many there were, of all."""
        return self._writes + sum(len(each.kubernetes.writes) for each in self.all())

    def forget_writes(self) -> None:
        """Count from now on."""
        self._writes = 0
        for process in self.all():
            process.kubernetes.writes.clear()

    def pacify(self) -> None:
        """All are awake and connected; who led has ended, and another leads."""
        for place, operator in enumerate(self.operators):
            if operator.paused or operator.leads:
                self._replace(place)
        for operator in self.operators:
            for kind in list(operator.watch.interrupted):
                operator.watch.resume(kind)
        for dispatcher in self._dispatchers:
            dispatcher.paused = False
        self._elect()

    def unseen(self, act: Callable[[], object]) -> None:
        """Something is done to HybridJobs while no watch is connected, or no operator there."""
        kind = HYBRIDJOBS.plural
        told = [each.watch for each in self.operators if kind not in each.watch.interrupted]
        for watch in told:
            watch.interrupt(kind)
        act()
        for watch in told:
            watch.resume(kind)

    # Processes

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}-{self._count}"

    def _operator(self) -> OperatorProcess:
        process = OperatorProcess(
            self._name("operator"), self._loop, self._server, self._store, self._nodes
        )
        process.kubernetes.deleting = self._checks.on_delete
        return process

    def _dispatcher(self) -> DispatcherProcess:
        process = DispatcherProcess(
            self._name("dispatcher"), self._loop, self._server, self._store, self._nodes
        )
        process.kubernetes.deleting = self._checks.on_delete
        return process

    def _elect(self) -> None:
        """Somebody leads who can; a leader that is paused does not know that it is deposed."""
        able = [each for each in self.operators if not each.paused]
        if able and not any(each.leads for each in able):
            self._random.choice(able).lead()

    def _replace(self, place: int) -> None:
        self._end(self.operators[place])
        self.operators[place] = self._operator()

    def _restart(self, place: int) -> None:
        self._replace(place)
        self._elect()

    def _restart_dispatcher(self, place: int) -> None:
        self._end(self._dispatchers[place])
        self._dispatchers[place] = self._dispatcher()

    def _end(self, process: OperatorProcess | DispatcherProcess) -> None:
        process.stop()
        self._writes += len(process.kubernetes.writes)

    # Trouble

    def trouble(self) -> Iterator[Deed]:
        """What may befall them now."""
        for place, operator in enumerate(self.operators):
            yield f"kill {operator.name}", partial(self._restart, place)
            yield from self._pauses(operator)
        for place, dispatcher in enumerate(self._dispatchers):
            yield f"kill {dispatcher.name}", partial(self._restart_dispatcher, place)
            yield from self._pauses(dispatcher)
        for operator in self.operators:
            watch = operator.watch
            for kind in WATCHED:
                if kind in watch.interrupted:
                    yield from [(f"{operator.name} lists {kind}", partial(watch.resume, kind))] * 3
                else:
                    yield f"{operator.name} loses {kind}", partial(watch.interrupt, kind)

    def _pauses(self, process: Process) -> Iterator[Deed]:
        def turn() -> None:
            process.paused = not process.paused
            self._elect()

        for _ in range(3 if process.paused else 1):
            yield f"{'wake' if process.paused else 'pause'} {process.name}", turn
