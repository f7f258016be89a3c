"""The engine beside its peers, workload by workload.

`KVSTORE_BENCH_KEYS` keys (300,000) of 16 bytes with values of `KVSTORE_BENCH_VALUE_BYTES` (100).
Each workload is measured `KVSTORE_BENCH_REPEATS` times (3), the engines taking turns, so that what
else the machine does hits them alike. `python -m benchmarks.report FILE` makes tables of a
`--benchmark-json=FILE`, from the fastest turn of each.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.engines import ENGINES, WRITE_BUFFER_BYTES, Engine, remove

KEYS = int(os.environ.get("KVSTORE_BENCH_KEYS", "300000"))
VALUE_BYTES = int(os.environ.get("KVSTORE_BENCH_VALUE_BYTES", "100"))
REPEATS = int(os.environ.get("KVSTORE_BENCH_REPEATS", "3"))
READS = min(KEYS, 100_000)
SYNCS = 1000
BATCH = 1000
MULTI = 100
SEEKS = 10_000
DATA_BYTES = KEYS * (16 + VALUE_BYTES)
ZIPF_EXPONENT = 0.99

# The suite's limit is there for tests: ten million puts may take an engine longer.
pytestmark = pytest.mark.timeout(0)

Work = Callable[[Engine, "Data"], int]


class Data:
    """Keys and values of one run; orders are made up front, each key a bytes object of its own."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(42)
        pool = self.random.bytes(VALUE_BYTES + 4096)
        self.values = [pool[i % 4096 : i % 4096 + VALUE_BYTES] for i in range(KEYS)]
        self.ordered = [b"%016d" % (2 * i) for i in range(KEYS)]
        self.shuffled = [b"%016d" % (2 * i) for i in self.random.permutation(KEYS).tolist()]
        self.pairs = list(zip(self.shuffled, self.values, strict=True))
        chosen = self.random.integers(0, KEYS, READS)
        self.reads = [b"%016d" % (2 * i) for i in chosen.tolist()]
        self.missing = [b"%016d" % (2 * i + 1) for i in chosen.tolist()]
        # Scrambled Zipf over all keys (YCSB, SoCC'10 §4.3), drawn by inverting the distribution.
        weights = np.cumsum(np.arange(1, KEYS + 1, dtype=float) ** -ZIPF_EXPONENT)
        ranks = np.searchsorted(weights, self.random.random(READS) * weights[-1])
        places = self.random.permutation(KEYS)[ranks]
        self.popular = [b"%016d" % (2 * i) for i in places.tolist()]
        newest = (KEYS - 1 - ranks).tolist()
        self.latest = [b"%016d" % (2 * i) for i in newest]
        self.added = [b"%016d" % (2 * (KEYS + i)) for i in range(READS)]
        self.choice = self.random.random(READS).tolist()


# --- workloads: each returns how many operations it did ------------------------------------------


def fill_sequential(engine: Engine, data: Data) -> int:
    put = engine.put
    for key, value in zip(data.ordered, data.values, strict=True):
        put(key, value)
    return KEYS


def fill_random(engine: Engine, data: Data) -> int:
    put = engine.put
    for key, value in zip(data.shuffled, data.values, strict=True):
        put(key, value)
    return KEYS


def write_batches(engine: Engine, data: Data) -> int:
    for at in range(0, KEYS, BATCH):
        engine.write(data.pairs[at : at + BATCH])
    return KEYS


def read(engine: Engine, data: Data) -> int:
    get = engine.get
    for key in data.reads:
        if get(key) is None:
            raise AssertionError(key)
    return READS


def read_missing(engine: Engine, data: Data) -> int:
    get = engine.get
    for key in data.missing:
        if get(key) is not None:
            raise AssertionError(key)
    return READS


def multi_get(engine: Engine, data: Data) -> int:
    for at in range(0, READS, MULTI):
        if None in engine.multi_get(data.reads[at : at + MULTI]):
            raise AssertionError(at)
    return READS


def scan(engine: Engine, data: Data) -> int:
    count = 0
    for _key, _value in engine.forward():
        count += 1
    assert count == KEYS
    return count


def scan_reverse(engine: Engine, data: Data) -> int:
    count = 0
    for _key, _value in engine.reverse():
        count += 1
    assert count == KEYS
    return count


def seek_and_next(engine: Engine, data: Data) -> int:
    from_key = engine.from_key
    for key in data.reads[:SEEKS]:
        from_key(key, 10)
    return min(SEEKS, READS)


def delete(engine: Engine, data: Data) -> int:
    call = engine.delete
    for key in data.shuffled:
        call(key)
    return KEYS


def put_synced(threads: int) -> Work:
    def work(engine: Engine, data: Data) -> int:
        share = SYNCS * min(threads, 8) // threads

        def run(number: int) -> None:
            for i in range(number * share, (number + 1) * share):
                engine.put_synced(data.shuffled[i % KEYS], data.values[i % KEYS])

        if threads == 1:
            run(0)
        else:
            workers = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        return share * threads

    return work


def ycsb(keys: str, reads: float, other: str) -> Work:
    """`reads` of the operations are gets, the rest is `other`; the keys are drawn as named."""

    def work(engine: Engine, data: Data) -> int:
        get, put = engine.get, engine.put
        added = iter(data.added)
        values = data.values
        for i, (key, choice) in enumerate(zip(getattr(data, keys), data.choice, strict=True)):
            if choice < reads:
                get(key)
            elif other == "update":
                put(key, values[i])
            elif other == "insert":
                put(next(added), values[i])
            else:
                get(key)
                put(key, values[i])
        return READS

    return work


def ycsb_scans(engine: Engine, data: Data) -> int:
    put, from_key = engine.put, engine.from_key
    added = iter(data.added)
    keys = data.popular[:SEEKS]
    for i, (key, choice) in enumerate(zip(keys, data.choice, strict=False)):
        if choice < 0.95:
            from_key(key, 1 + int(choice * 105))
        else:
            put(next(added), data.values[i])
    return len(keys)


# What each works on: a new store of its own; one of its own, full, all in memory; or one that it
# shares with others: full, in memory, or in tables with a cache for all of it or for a tenth. The
# workloads of YCSB share the latter and change it, so they come last, in the order of its paper.
WORKLOADS: dict[str, tuple[str, Work]] = {
    "fill sequential": ("new", fill_sequential),
    "fill random": ("new", fill_random),
    "batches of 1000": ("new", write_batches),
    "overwrite": ("own memory", fill_random),
    "delete": ("own memory", delete),
    "put + sync, 1 thread": ("new", put_synced(1)),
    "put + sync, 8 threads": ("new", put_synced(8)),
    "put + sync, 32 threads": ("new", put_synced(32)),
    "read random, in memory": ("memory", read),
    "read missing, in memory": ("memory", read_missing),
    "scan, in memory": ("memory", scan),
    "read random, tables, warm cache": ("tables", read),
    "read missing, tables": ("tables", read_missing),
    "multi_get of 100": ("tables", multi_get),
    "scan forward": ("tables", scan),
    "scan reverse": ("tables", scan_reverse),
    "seek + 10 next": ("tables", seek_and_next),
    "read random, cache of a tenth": ("small cache", read),
    "scan, cache of a tenth": ("small cache", scan),
    "YCSB A": ("changed tables", ycsb("popular", 0.5, "update")),
    "YCSB B": ("changed tables", ycsb("popular", 0.95, "update")),
    "YCSB C": ("changed tables", ycsb("popular", 1.0, "update")),
    "YCSB F": ("changed tables", ycsb("popular", 0.5, "modify")),
    "YCSB D": ("changed tables", ycsb("latest", 0.95, "insert")),
    "YCSB E": ("changed tables", ycsb_scans),
}


class Stores:
    """Prepared stores; those that several workloads share are kept open."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = Data()
        # The collector must not walk them all each time an engine makes a few tuples.
        gc.collect()
        gc.freeze()
        self.kind = ""
        self.shared: dict[str, Engine] = {}
        self.full: set[Path] = set()

    def open(self, name: str, kind: str, path: Path) -> Engine:
        buffer = WRITE_BUFFER_BYTES
        if kind.endswith("memory"):
            buffer = max(buffer, 2 * DATA_BYTES)
        cache = DATA_BYTES // 10 if kind == "small cache" else max(64 << 20, 2 * DATA_BYTES)
        store: Engine = ENGINES[name](path, cache, buffer)
        return store

    def fresh(self, name: str, kind: str, path: Path) -> Engine:
        remove(path)
        store = self.open(name, kind, path)
        if kind != "new":
            fill_random(store, self.data)
        return store

    def share(self, name: str, kind: str) -> Engine:
        if kind == "memory":
            return self.fresh(name, kind, self.root / f"{name}-memory")
        path = self.root / f"{name}-tables"
        if path not in self.full:
            store = self.fresh(name, kind, path)
            store.settle()
            store.close()
            self.full.add(path)
        store = self.open(name, kind, path)
        read(store, self.data)
        scan(store, self.data)
        return store

    def get(self, name: str, kind: str) -> tuple[Engine, Callable[[], None]]:
        """A store and what to call when done with it."""
        if kind == "new" or kind.startswith("own"):
            path = self.root / f"{name}-own"
            store = self.fresh(name, kind, path)

            def finish() -> None:
                store.close()
                remove(path)

            return store, finish
        if self.kind != kind:
            self.close()
            self.kind = kind
        if name not in self.shared:
            self.shared[name] = self.share(name, kind)
        return self.shared[name], lambda: None

    def close(self) -> None:
        for store in self.shared.values():
            store.close()
        self.shared.clear()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    root = tmp_path_factory.mktemp("engines")
    made = Stores(root)
    yield made
    made.close()
    remove(root)


# One engine after another within each turn, so that they are measured under the same conditions.
TURNS = [
    pytest.param(workload, turn, name, id=f"{workload}-{turn}-{name}")
    for workload in WORKLOADS
    for turn in range(REPEATS)
    for name in ENGINES
]


@pytest.mark.parametrize(("workload", "turn", "name"), TURNS)
def test_workload(benchmark: Any, stores: Stores, workload: str, turn: int, name: str) -> None:
    kind, work = WORKLOADS[workload]
    store, finish = stores.get(name, kind)
    try:
        count = benchmark.pedantic(work, args=(store, stores.data), rounds=1, iterations=1)
    finally:
        finish()
    benchmark.extra_info.update(
        workload=workload, engine=name, operations=count, keys=KEYS, value_bytes=VALUE_BYTES
    )


@pytest.mark.parametrize("turn", range(REPEATS))
def test_bare_sync(benchmark: Any, tmp_path: Path, turn: int) -> None:
    """pwrite + fdatasync of a record into a preallocated file: what the disk itself takes."""
    record = bytes(16 + VALUE_BYTES + 48)

    def work() -> int:
        for i in range(SYNCS):
            os.pwrite(file, record, i * len(record))
            os.fdatasync(file)
        return SYNCS

    file = os.open(tmp_path / "bare", os.O_CREAT | os.O_RDWR)
    try:
        os.pwrite(file, bytes(SYNCS * len(record)), 0)
        os.fsync(file)
        count = benchmark.pedantic(work, rounds=1, iterations=1)
    finally:
        os.close(file)
    benchmark.extra_info.update(
        workload="put + sync, 1 thread", engine="bare", operations=count, keys=KEYS,
        value_bytes=VALUE_BYTES,
    )  # fmt: skip


def footprint(arguments: Sequence[str]) -> dict[str, int]:
    printed = subprocess.check_output(
        [sys.executable, "-m", "benchmarks.engine_footprint", *arguments],
        cwd=Path(__file__).resolve().parents[1],
    )
    measured: dict[str, int] = json.loads(printed)
    return measured


@pytest.mark.parametrize("name", ENGINES)
def test_footprint(benchmark: Any, tmp_path: Path, name: str) -> None:
    """Peak memory and size on disk of filling, compacting, reading, scanning in a new process."""
    arguments = [name, os.fspath(tmp_path / "store"), str(KEYS), str(VALUE_BYTES)]
    measured = benchmark.pedantic(footprint, args=(arguments,), rounds=1, iterations=1)
    benchmark.extra_info.update(
        workload="footprint", engine=name, keys=KEYS, value_bytes=VALUE_BYTES, **measured
    )
