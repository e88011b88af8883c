"""Kubernetes' own conformance tests on a cluster of ours: `python -m tests.conformance`."""
