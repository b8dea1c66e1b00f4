"""The cluster that tests and demo run on; see docs/cluster.md."""

from tests.cluster.current import Cluster, current
from tests.cluster.shell import ClusterError

__all__ = ["Cluster", "ClusterError", "current"]
