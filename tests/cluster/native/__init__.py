"""A real one-node Kubernetes without a container engine, in namespaces of its own."""

from tests.cluster.native.cluster import down, start_api_server, status, stop_api_server, up

__all__ = ["down", "start_api_server", "status", "stop_api_server", "up"]
