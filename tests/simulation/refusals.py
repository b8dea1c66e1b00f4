"""What the API server refuses to create: for a while, or one job's for good.

In the words of Kubernetes 1.35, which say why.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from random import Random
from uuid import UUID

from hybridjobs.errors import ClusterUnavailable, HybridJobsError
from hybridjobs.kube import names
from hybridjobs.kube.client import (
    HYBRIDJOBS,
    JOBS,
    PODS,
    Conflict,
    Forbidden,
    Invalid,
    TooManyRequests,
)
from tests.simulation.cluster import ApiServer, Deed, Object

_Error = Callable[[str], HybridJobsError]  # about an object of that name


def _quota(name: str) -> Forbidden:
    text = f'"{name}" is forbidden: exceeded quota: small, requested: 1, used: 1, limited: 1'
    return Forbidden(403, "Forbidden", text)


def _contended(name: str) -> Conflict:
    text = f'Operation cannot be fulfilled on resourcequotas "small" for {name}: modified'
    return Conflict(409, "Conflict", text)


def _webhook(_name: str) -> ClusterUnavailable:
    text = 'Internal error occurred: failed calling webhook "jobs.example.com": no answer'
    return ClusterUnavailable(f"the Kubernetes API answers 500 InternalError: {text}")


def _load(_name: str) -> TooManyRequests:
    return TooManyRequests(429, "TooManyRequests", "too many requests, please try again later")


def _denied(name: str) -> Forbidden:
    text = f'"{name}" is forbidden: ValidatingAdmissionPolicy "p" denied request: no'
    return Forbidden(403, "Forbidden", text)


def _invalid(name: str) -> Invalid:
    return Invalid(422, "Invalid", f'"{name}" is invalid: spec.template: Invalid value: {{}}')


_QUOTA = "a quota is full"
_PASSING: dict[str, _Error] = {
    _QUOTA: _quota,
    "a quota is contended": _contended,
    "a webhook is away": _webhook,
    "there is too much load": _load,
}
_FINAL: dict[str, tuple[str, _Error]] = {
    "Jobs are denied": (JOBS.plural, _denied),
    "Jobs are invalid": (JOBS.plural, _invalid),
    "HybridJob is invalid": (HYBRIDJOBS.plural, _invalid),
}


class Refusals:
    """Kinds that are refused for now, and at most one job that is for ever."""

    def __init__(self, random: Random, server: ApiServer, now: Callable[[], datetime]) -> None:
        self._random = random
        self._clock = now
        # When last, by name: in a way that ends the attempt if it goes on for long.
        self.refused_at: dict[str, datetime] = {}
        self.for_good: set[UUID] = set()  # jobs that were refused, and not for a while
        self._now: dict[str, _Error] = {}
        self._final: tuple[UUID, str] | None = None
        server.refuse = self._check

    @property
    def invalid(self) -> UUID | None:
        """The job of which something is said to be invalid."""
        return self._final[0] if self._final and "invalid" in self._final[1] else None

    @property
    def in_force(self) -> bool:
        """Whether anything is refused for now."""
        return bool(self._now)

    @property
    def is_quota_of_jobs(self) -> bool:
        """Whether Jobs are refused by a quota, and nothing else by anything."""
        return list(self._now.items()) == [(JOBS.plural, _quota)]

    def begin(self) -> None:
        """Something is refused from now on."""
        kind = self._random.choice([HYBRIDJOBS.plural, JOBS.plural, JOBS.plural, PODS.plural])
        self._now[kind] = _PASSING[self._random.choice([_QUOTA, *_PASSING])]

    def _check(self, kind: str, body: Object) -> None:
        name = body["metadata"]["name"]
        if kind in self._now:
            if self._now[kind] is _quota:
                self.refused_at[name] = self._clock()
            raise self._now[kind](name)
        if self._final is not None:
            job_id, (refused, error) = self._final[0], _FINAL[self._final[1]]
            if kind == refused and body["metadata"]["labels"][names.JOB_ID] == str(job_id):
                self.refused_at[name] = self._clock()
                self.for_good.add(job_id)
                raise error(name)

    def lift(self) -> None:
        """What passes has passed."""
        self._now.clear()

    def trouble(self, job_ids: Iterable[UUID]) -> Iterator[Deed]:
        """What may begin, or end, now."""
        for kind in (HYBRIDJOBS.plural, JOBS.plural, PODS.plural):
            if kind in self._now:
                yield from [(f"{kind} are accepted again", partial(self._now.pop, kind))] * 4
            else:
                what = self._random.choice(list(_PASSING))
                refuse = partial(self._now.__setitem__, kind, _PASSING[what])
                yield f"{kind} are refused: {what}", refuse
        if self._final is None:
            for job_id in job_ids:
                how = self._random.choice(list(_FINAL))
                yield f"for ever, of {job_id}: {how}", partial(self._refuse, job_id, how)

    def _refuse(self, job_id: UUID, how: str) -> None:
        self._final = job_id, how
