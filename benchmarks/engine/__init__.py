"""The engine beside its peers: `python -m benchmarks.engine --help`, docs/performance.md."""
