"""Rows become HybridJob resources. Runs in every ingress replica; one claims at a time."""
