"""Whole clusters under a virtual clock, network and disk, everything decided by one seed.

``simulate(seed)`` runs one; ``python -m kvstore.testing.simulation --help`` many.
"""

from kvstore.testing.simulation.plan import Plan, draw
from kvstore.testing.simulation.simulation import Failed, Outcome, replay_command, simulate

__all__ = ["Failed", "Outcome", "Plan", "draw", "replay_command", "simulate"]
