"""HybridJobs: webhooks that start long work, run as Kubernetes Jobs, never lost."""

from importlib.metadata import version

__version__ = version("hybridjobs")
