"""Whole clusters under a virtual clock, network and disk, everything decided by one seed.

``simulate(seed)`` runs one; ``python -m tests.simulator --help`` many.
"""

from tests.simulator.plan import Plan, draw
from tests.simulator.simulation import Failed, Outcome, replay_command, simulate

__all__ = ["Failed", "Outcome", "Plan", "draw", "replay_command", "simulate"]
