"""Counters that cost next to nothing to count.

They are dicts that a collector reads when it is asked: on the webhooks' path the client's own
counters cost more than the request's routing.
"""

import math
from collections.abc import Iterable, Iterator

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

OTHER = "other"


class Counts(Collector):
    """One counter; its values by label values.

    When it has `at_most` of them, new ones are counted with OTHER as their last label. Those that
    are `known` are told as 0 until they are counted: only then is the first one a rise.
    """

    def __init__(
        self,
        name: str,
        description: str,
        *labels: str,
        at_most: float = math.inf,
        known: Iterable[tuple[str, ...]] = (),
    ) -> None:
        self._at_most = at_most
        self._about = (f"hybridjobs_{name}", description)
        self._labels = labels
        self._values: dict[tuple[str, ...], int] = dict.fromkeys(known, 0)
        REGISTRY.register(self)

    def add(self, *labels: str) -> None:
        """Count one."""
        if labels not in self._values and len(self._values) >= self._at_most:
            labels = (*labels[:-1], OTHER)
        self._values[labels] = self._values.get(labels, 0) + 1

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The values as Prometheus' client wants them."""
        name, description = self._about
        family = CounterMetricFamily(name, description, labels=self._labels)
        # A copy: the text is made in a thread.
        for labels, value in self._values.copy().items():
            family.add_metric(labels, value)
        yield family
