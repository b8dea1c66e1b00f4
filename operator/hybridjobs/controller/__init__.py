"""HybridJobs become Kubernetes Jobs, and what became of those becomes outcomes.

`watch` feeds caches and puts names on a work queue; `reconcile` takes a name, reads the row, asks
the pure `decide` what to do, and does it; `sweep` finds what no event told.
"""
