"""Load from a native generator in a process of its own: kvd and etcd get the same calls."""

from benchmarks.load.generator import Generating, Load, Measured, Target, measure, start

__all__ = ["Generating", "Load", "Measured", "Target", "measure", "start"]
