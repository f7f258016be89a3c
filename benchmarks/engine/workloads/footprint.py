"""What a store takes: memory of each kind while it works, and the disk when it is left alone."""

from __future__ import annotations

from benchmarks.engine.observing import (
    anonymous_bytes,
    disk_bytes,
    drain,
    mapped_bytes,
    own_heap_trimmed,
)
from benchmarks.engine.peers.by_name import find
from benchmarks.engine.turn import Turn
from benchmarks.engine.workloads import loops

__all__ = ["footprint"]

ROUNDS = 5
LOOKS = 20


def footprint(turn: Turn) -> None:
    """A fill and rounds of overwrites, then reads and a scan; looked at many times in between.

    Of mapped pages the kernel takes back what others need; anonymous memory it can't. Our own page
    cache counts for nobody: all engines leave their files in it.
    """
    data, path = turn.data, turn.fresh("footprint")
    find(turn.engine)
    # Made before the first look, so that they count for no engine.
    orders = [data.shuffled, *(data.uniform(turn.seed(f"{n}"), data.count) for n in range(ROUNDS))]
    asked = data.uniform(turn.seed("read"), data.count)
    own_heap_trimmed()
    anonymous, mapped = anonymous_bytes(), mapped_bytes()
    most = {"anonymous": 0, "mapped": 0}

    def look() -> None:
        most["anonymous"] = max(most["anonymous"], anonymous_bytes() - anonymous)
        most["mapped"] = max(most["mapped"], mapped_bytes() - mapped)

    step = max(1, data.count // LOOKS)
    with turn.store(path, turn.budget()) as store:
        for order in orders:
            for at in range(0, data.count, step):
                loops.put_all(store, order[at : at + step], data)
                look()
        drain()
        look()
        turn.record("on disk, overwritten and drained", disk_bytes(path) / 2**20, "MiB")
        for at in range(0, data.count, step):
            loops.read(store, asked[at : at + step])
            look()
        loops.scan(store)
        look()
        turn.record("anonymous memory, at most", most["anonymous"] / 2**20, "MiB")
        turn.record("mapped pages of files, at most", most["mapped"] / 2**20, "MiB")
        store.settle()
        drain()
        turn.record("on disk, compacted", disk_bytes(path) / 2**20, "MiB")
    turn.record("on disk, compacted and closed", disk_bytes(path) / 2**20, "MiB")
    turn.record("keys and values themselves", data.size / 2**20, "MiB of data")
