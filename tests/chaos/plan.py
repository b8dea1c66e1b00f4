"""What a run does, and when: all of it drawn from the seed, none of it from the run."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Channel = Literal["api", "github", "kubectl"]

COMPLETED = frozenset({"completed"})
FAILED = frozenset({"failed"})
CANCELLED = frozenset({"cancelled", "completed"})  # whichever was committed first
ENDED = frozenset({"completed", "failed"})  # its handler depends on what is broken


@dataclass(frozen=True)
class Kind:
    """A kind of job: how many of a hundred there are, and how each may end."""

    weight: int
    ends: frozenset[str]
    channel: Channel = "api"


KINDS: dict[str, Kind] = {
    "short": Kind(18, COMPLETED),
    "long": Kind(12, COMPLETED),
    "reported": Kind(10, COMPLETED),
    "flaky": Kind(6, COMPLETED),
    "later": Kind(6, COMPLETED),
    "failing": Kind(6, FAILED),
    "permanent": Kind(5, FAILED),
    "deadline": Kind(5, FAILED),
    "oom": Kind(4, FAILED),
    "cancelled": Kind(7, CANCELLED),
    "dependent": Kind(6, COMPLETED),
    "kubectl": Kind(6, COMPLETED, "kubectl"),
    "hook": Kind(4, COMPLETED, "github"),
    "quick": Kind(3, ENDED, "github"),
    "sync": Kind(2, ENDED, "github"),
}
_DEPENDED_ON = ("short", "long", "reported")


@dataclass(frozen=True)
class PlannedJob:
    """One job: when it is sent, and what it is asked to do."""

    number: int
    at: float  # seconds from the start, as all times here
    kind: str
    key: str
    payload: dict[str, Any]
    deadline_seconds: int | None = None
    cancel_at: float | None = None
    depends_on: tuple[int, ...] = ()  # numbers of earlier jobs

    @property
    def ends(self) -> frozenset[str]:
        """The statuses in which it may end."""
        return KINDS[self.kind].ends


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault; `seconds` is the shortest and longest time that it lasts."""

    seconds: tuple[float, float] = (0.0, 0.0)
    native: bool = False  # shown by the native cluster alone
    cheap: bool = True  # over and mended within seconds: part of the short run


FAULTS: dict[str, FaultKind] = {
    "ingress-killed": FaultKind(),
    "operator-killed": FaultKind(),
    "postgres-killed": FaultKind(),
    "pod-deleted": FaultKind(),
    "pod-evicted": FaultKind(cheap=False),
    "job-deleted": FaultKind(),
    "hybridjob-deleted": FaultKind(),
    "ingress-deleted": FaultKind(cheap=False),
    "operator-deleted": FaultKind(cheap=False),
    "postgres-deleted": FaultKind(cheap=False),
    "operator-frozen": FaultKind((20, 26), cheap=False),
    "postgres-frozen": FaultKind((3, 8), cheap=False),
    "api-server-killed": FaultKind((1, 8), native=True),
    "api-server-frozen": FaultKind((2, 8), native=True, cheap=False),
    "kubelet-killed": FaultKind((1, 10), native=True),
    "containerd-killed": FaultKind((1, 6), native=True),
    "controller-manager-killed": FaultKind((2, 10), native=True, cheap=False),
    "scheduler-killed": FaultKind((2, 10), native=True, cheap=False),
    "database-dropped": FaultKind((2, 10), native=True, cheap=False),
    "database-reset": FaultKind((1, 6), native=True),
    "database-slow": FaultKind((4, 12), native=True, cheap=False),
    "api-dropped": FaultKind((2, 10), native=True, cheap=False),
    "api-reset": FaultKind((1, 6), native=True),
    "api-slow": FaultKind((4, 12), native=True, cheap=False),
}


@dataclass(frozen=True)
class Fault:
    """One fault: what breaks at `at`, for how long, and which of several (a part of one)."""

    at: float
    kind: str
    seconds: float
    pick: float


@dataclass(frozen=True)
class Plan:
    """All of a run."""

    seed: int
    seconds: float  # in which jobs are sent and things break
    jobs: tuple[PlannedJob, ...]
    faults: tuple[Fault, ...]


def planned(
    seed: int, *, jobs: int, seconds: float, faults: int, fault_kinds: Sequence[str]
) -> Plan:
    """The plan of a seed: each kind of job and of fault as often as the others, by its weight."""
    chance = random.Random(seed)
    return Plan(
        seed,
        seconds,
        _jobs(chance, seed, jobs, seconds),
        _faults(chance, faults, seconds, fault_kinds),
    )


def _jobs(chance: random.Random, seed: int, count: int, seconds: float) -> tuple[PlannedJob, ...]:
    weights = [kind.weight for kind in KINDS.values()]
    # One of each first, so that a short run has them all.
    kinds = [*KINDS, *chance.choices(list(KINDS), weights, k=max(0, count - len(KINDS)))][:count]
    chance.shuffle(kinds)
    times = sorted(chance.uniform(0, seconds) for _ in kinds)
    made: list[PlannedJob] = []
    for number, (at, kind) in enumerate(zip(times, kinds, strict=True)):
        made.append(_job(chance, seed, number, at, kind, made))
    return tuple(made)


def _job(
    chance: random.Random,
    seed: int,
    number: int,
    at: float,
    kind: str,
    earlier: Sequence[PlannedJob],
) -> PlannedJob:
    payload: dict[str, Any] = {"number": number}
    deadline: int | None = None
    cancel_at: float | None = None
    depends_on: tuple[int, ...] = ()
    match kind:
        case "long" | "reported" | "kubectl":
            payload["sleep"] = round(chance.uniform(2, 15), 1)
            payload["report"] = kind == "reported"
        case "flaky":
            payload["plan"] = ["fail"]
        case "later":
            payload["plan"] = ["later"]
        case "failing":
            payload["plan"] = ["fail"] * 99
        case "permanent":
            payload["plan"] = ["permanent"] * 99
        case "deadline":
            payload["sleep"], deadline = 1200, chance.randint(3, 8)
        case "oom":
            payload["plan"] = ["oom"] * 99
        case "cancelled":
            payload["sleep"] = round(chance.uniform(10, 30), 1)
            cancel_at = round(at + chance.uniform(0, 12), 1)
        case "dependent":
            candidates = [each.number for each in earlier if each.kind in _DEPENDED_ON]
            depends_on = tuple(chance.sample(candidates, min(2, len(candidates))))
    return PlannedJob(
        number=number,
        at=round(at, 2),
        kind=kind,
        key=f"chaos-{seed}-{number}",
        payload=payload,
        deadline_seconds=deadline,
        cancel_at=cancel_at,
        depends_on=depends_on,
    )


def _faults(
    chance: random.Random, count: int, seconds: float, kinds: Sequence[str]
) -> tuple[Fault, ...]:
    if not kinds:
        return ()
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += chance.sample(list(kinds), len(kinds))
    # Not before there are jobs to hurt.
    times = sorted(chance.uniform(seconds * 0.05, seconds) for _ in range(count))
    return tuple(
        Fault(
            at=round(at, 2),
            kind=kind,
            seconds=round(chance.uniform(*FAULTS[kind].seconds), 1),
            pick=chance.random(),
        )
        for at, kind in zip(times, drawn[:count], strict=True)
    )
