"""Loops of calls that workloads share; each returns how many operations it did."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

from benchmarks.engine.data import Data
from benchmarks.engine.peers.contract import Engine, Pair

__all__ = [
    "batches_of",
    "delete_all",
    "multi_get",
    "pairs_kept",
    "put_all",
    "read",
    "read_missing",
    "scan",
    "scan_reverse",
    "seek",
    "write_batches",
]

MOST_KEPT = 1_000_000


def put_all(store: Engine, keys: Sequence[bytes], data: Data) -> int:
    put = store.put
    for key, value in zip(keys, cycle(data.values), strict=False):
        put(key, value)
    return len(keys)


def batches_of(keys: Sequence[bytes], data: Data, size: int) -> list[list[Pair]]:
    """Made before the clock runs: a pair takes as long to make as some engines to write."""
    pairs = zip(keys, cycle(data.values), strict=False)
    return [list(islice(pairs, size)) for _ in range(0, len(keys), size)]


def write_batches(store: Engine, batches: Sequence[Sequence[Pair]]) -> int:
    write = store.write
    for batch in batches:
        write(batch)
    return sum(map(len, batches))


def delete_all(store: Engine, keys: Sequence[bytes]) -> int:
    delete = store.delete
    for key in keys:
        delete(key)
    return len(keys)


def read(store: Engine, keys: Sequence[bytes]) -> int:
    get = store.get
    for key in keys:
        if get(key) is None:
            raise AssertionError(key)
    return len(keys)


def read_missing(store: Engine, keys: Sequence[bytes]) -> int:
    get = store.get
    for key in keys:
        if get(key) is not None:
            raise AssertionError(key)
    return len(keys)


def multi_get(store: Engine, keys: Sequence[bytes], size: int) -> int:
    for at in range(0, len(keys), size):
        if None in store.multi_get(keys[at : at + size]):
            raise AssertionError(keys[at])
    return len(keys)


def scan(store: Engine) -> int:
    """Each pair is let go of at once, which is as light as a scan gets."""
    count = 0
    for _key, _value in store.forward():
        count += 1
    return count


def scan_reverse(store: Engine) -> int:
    count = 0
    for _key, _value in store.reverse():
        count += 1
    return count


def pairs_kept(store: Engine) -> int:
    """As most programs scan: they keep what they got. Of many pairs the first million."""
    return len(list(islice(store.forward(), MOST_KEPT)))


def seek(store: Engine, keys: Sequence[bytes]) -> int:
    for key in keys:
        store.from_key(key, 10)
    return len(keys)
