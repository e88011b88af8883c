"""p8s: a complete, real Kubernetes in one privileged container."""

__version__ = "0.1.0"
