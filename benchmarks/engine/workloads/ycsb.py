"""YCSB (SoCC'10), each workload on a settled store of its own with draws of its own.

A cache of a quarter of the data; updates go through buffers of a tenth, of 8 MiB at most, so that
flushes and compactions fall into the workload, and the clock stops when they are done. What one
workload wrote no other reads.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from itertools import cycle

from benchmarks.engine.observing import remove
from benchmarks.engine.peers.contract import Engine
from benchmarks.engine.turn import Turn

__all__ = ["ycsb"]

# Share of reads, what the rest is, and which keys: A to F as in the paper.
MIXES = {
    "A": (0.5, "update"),
    "B": (0.95, "update"),
    "C": (1.0, "update"),
    "D": (0.95, "insert"),
    "E": (0.95, "insert"),
    "F": (0.5, "modify"),
}
OPERATIONS = 100_000
MOST_OPERATIONS = 500_000
"""Of ten million keys: half of them updates, so that they fill the buffer three times."""
LARGEST_BUFFER_BYTES = 8 << 20
SCANS = 10_000
SCANNED_MOST = 100

Operation = tuple[str, bytes, int]
"""What, the key, and how many entries to scan."""


def ycsb(turn: Turn) -> None:
    data = turn.data
    budget = turn.budget(buffer_bytes=min(turn.steady_buffer_bytes, LARGEST_BUFFER_BYTES))
    for name in MIXES:
        most = min(max(OPERATIONS, data.count // 3), MOST_OPERATIONS)
        count = min(SCANS if name == "E" else most, data.count)
        path = turn.copied(f"ycsb-{name}")
        # A warm cache, by reads that are drawn alike but before anything is written.
        warm = [key for _, key, _ in _operations(turn, name, "warm", min(count, OPERATIONS))]
        operations = list(_operations(turn, name, "run", count))
        with turn.store(path, budget) as store:
            for key in warm:
                store.get(key)
            turn.timed_drained(f"YCSB {name}", partial(_run, store, operations, turn))
        remove(path)


def _run(store: Engine, operations: list[Operation], turn: Turn) -> int:
    get, put, from_key = store.get, store.put, store.from_key
    values = cycle(turn.data.values)
    for what, key, count in operations:
        if what == "read":
            get(key)
        elif what == "scan":
            from_key(key, count)
        elif what == "modify":
            get(key)
            put(key, next(values))
        else:
            put(key, next(values))
    return len(operations)


def _operations(turn: Turn, name: str, purpose: str, count: int) -> Iterator[Operation]:
    data, (reads, other) = turn.data, MIXES[name]
    seed = turn.seed(f"{name} {purpose}")
    dice = random.Random(seed)
    inserted = data.added(seed, count)
    newest = 0
    if name == "D":
        # The newest by rank: those that this run has inserted come first, as the workload says.
        ranks = data.ranks(seed, count)
        keys = data.shuffled
    else:
        popular = data.popular(seed, name, count)
    for number in range(count):
        if dice.random() >= reads:
            if other == "insert":
                yield "insert", inserted[newest], 0
                newest += 1
            else:
                yield other, popular[number], 0
        elif name == "D":
            rank = ranks[number]
            key = inserted[newest - 1 - rank] if rank < newest else keys[newest - 1 - rank]
            yield "read", key, 0
        elif name == "E":
            yield "scan", popular[number], dice.randint(1, SCANNED_MOST)
        else:
            yield "read", popular[number], 0
