"""The HybridJobTypes: as they are at first, and what an administrator makes of them."""

from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any

from hybridjobs.kube.client import HYBRIDJOB_TYPES
from hybridjobs.model import JobType
from tests.builders import job_type
from tests.simulation.cluster import ApiServer, Deed, Object

_SPEC: dict[str, Any] = {
    "deadlineSeconds": 30,
    "startDeadlineSeconds": 20,
    "gracePeriodSeconds": 5,
}
_AGAIN: dict[str, Any] = {"limit": 2, "baseSeconds": 5, "maxSeconds": 20}
TYPES = [
    job_type("sim/plain", retry=_AGAIN, **_SPEC),
    job_type("sim/again", retry={**_AGAIN, "onDeadline": "Retry", "onOOM": "Retry"}, **_SPEC),
    job_type("sim/alone", retry={**_AGAIN, "overlap": "Forbid"}, **_SPEC),
    job_type("sim/queued", retry=_AGAIN, queueName="queue", **_SPEC),
]
_CHANGES: list[dict[str, Any]] = [
    {"startDeadlineSeconds": 25},
    {"deadlineSeconds": 10},
    {"gracePeriodSeconds": 1},
    {"queueName": "another"},
]


class Administrator:
    """Who changes types while jobs of theirs run, takes them away and brings them back."""

    def __init__(self, random: Random, server: ApiServer) -> None:
        self._random = random
        self._server = server
        self.types = random.sample(TYPES, random.choice([2, len(TYPES)]))
        self.bring_back()

    def deeds(self) -> Iterator[Deed]:
        """What may be done now."""
        server, kind = self._server, HYBRIDJOB_TYPES.plural
        for each in self.types:
            body = server.objects[kind].get(each.name)
            if body is None:
                yield from [(f"{each.name} is back", partial(self._make, each))] * 3
                continue
            spec = {**each.raw_spec, **self._random.choice(_CHANGES)}
            changed = {**body, "spec": spec}
            yield f"{each.name} is changed", partial(server.replace, kind, changed)
            # Where none is left, those known are kept.
            if len(server.objects[kind]) > 1:
                yield f"{each.name} is deleted", partial(server.remove, kind, each.name)

    def bring_back(self) -> None:
        """All of this run are there."""
        there = self._server.objects[HYBRIDJOB_TYPES.plural]
        for each in self.types:
            if each.name not in there:
                self._make(each)

    def _make(self, job_type: JobType) -> None:
        accepted = {"type": "Accepted", "status": "True", "observedGeneration": 1}
        body: Object = {
            "metadata": {"name": job_type.name},
            "spec": job_type.raw_spec,
            "status": {"conditions": [accepted]},
        }
        self._server.create(HYBRIDJOB_TYPES.plural, body)
