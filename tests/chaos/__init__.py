"""Faults on real kvd processes: ``make chaos``, and what tests/integration borrows of it."""
