"""Refusing and counting the engine's C allocations, for tests. One count for the whole process.

Only allocations in C are meant (memory.pxd), not Python objects, and those of all threads.
"""

def watch_allocations() -> None:
    """Count allocations from 1 on and refuse none."""

def fail_allocation(n: int, times: int | None = 1) -> None:
    """Refuse the ``n``-th allocation from now and the ones after it: ``times`` in all.

    None is for ever. Counts anew from here; ``n`` is 1 for the very next one.
    """

def reset() -> None:
    """Refuse nothing, count nothing, forget all counts: how the process starts."""

def count() -> int:
    """Allocations asked for since the last call of :func:`fail_allocation`."""

def refused() -> int:
    """How many of these were refused."""

def live() -> int:
    """Pieces obtained less pieces given back since :func:`reset`, while counting was on."""
