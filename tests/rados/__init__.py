"""Gateways over a real RADOS cluster (tools/rados_cluster.py): ``make test-rados``."""
