"""What runs handlers: in a pod, in a warm child process of the ingress, or alone.

`runner` turns a handler and a payload into how it ended; `pod`, `child` and `alone` bring the
payload in and carry the end out. None of it imports the store or Kubernetes.
"""
