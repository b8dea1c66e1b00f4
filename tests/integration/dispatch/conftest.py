"""The dispatcher is tested in the same scene as the controller."""

from tests.integration.controller.conftest import cluster, jobs_namespace, proxy, scene

__all__ = ["cluster", "jobs_namespace", "proxy", "scene"]
