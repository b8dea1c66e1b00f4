"""The Kubernetes API: a thin client on kubernetes.aio, and our objects built as values."""
