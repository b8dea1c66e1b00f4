"""`hybridjobs dev`: everything but the cluster, on one machine, for people who write handlers.

The ingress is the real one, and so are the queue and the worker. Only the place where jobs run is
another: local processes instead of pods. Nothing that serves imports this package.
"""
