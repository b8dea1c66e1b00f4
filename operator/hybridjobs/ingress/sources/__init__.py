"""Webhook sources: one module a convention, each an endpoint of the listener for strangers."""
