"""The dispatcher is tested in the same scene as the controller."""

from tests.integration.controller.conftest import cluster, jobs_namespace, scene

__all__ = ["cluster", "jobs_namespace", "scene"]
