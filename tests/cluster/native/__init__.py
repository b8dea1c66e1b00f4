"""A real one-node Kubernetes without a container engine, in namespaces of its own."""

from tests.cluster.native.cluster import down, start_component, status, stop_component, up

__all__ = ["down", "start_component", "status", "stop_component", "up"]
