"""A queue: entries are put at the end and popped at the front."""

from __future__ import annotations

from benchmarks.engine.peers.contract import Engine
from benchmarks.engine.turn import Turn

__all__ = ["queue"]

STANDING = 1000
PASSING = 20_000
POPS = 2000


def _name(number: int) -> bytes:
    return b"queue/%016d" % number


def _pop(store: Engine) -> None:
    """The first entry by a scan from the front, past whatever deletes left there."""
    ((key, _value),) = store.from_key(b"", 1)
    store.delete(key)


def queue(turn: Turn) -> None:
    data = turn.data
    value = data.values[0]
    passing, full = min(PASSING, data.count), data.count
    with turn.store(turn.fresh("passing"), turn.budget()) as store:
        for number in range(STANDING):
            store.put(_name(number), value)

        def pass_through() -> int:
            for number in range(STANDING, STANDING + passing):
                store.put(_name(number), value)
                _pop(store)
            return passing

        turn.timed_drained(f"put and pop, {STANDING:,} waiting", pass_through)

        def pass_through_remembering() -> int:
            front = b""
            for number in range(STANDING + passing, STANDING + 2 * passing):
                store.put(_name(number), value)
                ((front, _value),) = store.from_key(front, 1)
                store.delete(front)
            return passing

        # As RocksDB's guide to queues has it: a pop begins where the last one ended.
        turn.timed_drained("the same, the front remembered", pass_through_remembering)
    with turn.store(turn.fresh("full"), turn.budget()) as store:
        for number in range(full):
            store.put(_name(number), value)
        kept = min(STANDING, full // 10)
        for number in range(full - kept):
            store.delete(_name(number))

        def first() -> int:
            return len(store.from_key(b"", 1))

        turn.timed("first entry after all but a few were deleted", first)
        pops = min(POPS, kept)

        def pop_some() -> int:
            for _ in range(pops):
                _pop(store)
            return pops

        turn.timed_drained("pop of those that are left", pop_some)
        store.flush()
        store.put(_name(full), value)
        turn.timed("first entry after a flush", first)
