"""The ingress and the server of the integration tests."""

from tests.integration.ingress.inngest.conftest import inngest

__all__ = ["inngest"]
