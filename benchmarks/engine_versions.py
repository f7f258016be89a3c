"""One version of the engine beside another: processor time an operation in microseconds, as JSON.

Run it with the interpreter of each of two builds in turn, A B A B, and compare pair by pair:

    A/.venv/bin/python benchmarks/engine_versions.py
    B/.venv/bin/python benchmarks/engine_versions.py

The processor time of all threads counts, so background flushes, compactions and the log's thread do
too, and what else the machine does matters little.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import kvstore

KEYS = 100_000
LARGE = 10_000


def main() -> None:
    dice = random.Random(5)
    keys = [b"%016d" % number for number in range(KEYS)]
    values = [dice.randbytes(100) for _ in range(4096)]
    shuffled = keys[:]
    dice.shuffle(shuffled)
    told: dict[str, float] = {}

    def timed(name: str, work: Callable[[], None], operations: int) -> None:
        began = time.process_time()
        work()
        told[name] = (time.process_time() - began) / operations * 1e6

    def fill(db: kvstore.DB, order: list[bytes]) -> None:
        put = db.put
        for number, key in enumerate(order):
            put(key, values[number & 4095])

    def read(db: kvstore.DB, suffix: bytes = b"") -> None:
        get = db.get
        for key in shuffled:
            get(key + suffix)

    def scan(db: kvstore.DB, reverse: bool = False) -> None:
        for _ in db.iterator(reverse=reverse):
            pass

    def seek(db: kvstore.DB) -> None:
        for key in shuffled[:LARGE]:
            with db.iterator(start=key) as entries:
                for _ in range(10):
                    next(entries, None)

    def multi_get(db: kvstore.DB) -> None:
        for start in range(0, KEYS, 100):
            db.multi_get(shuffled[start : start + 100])

    def delete(db: kvstore.DB) -> None:
        for key in shuffled:
            db.delete(key)

    def batches(db: kvstore.DB) -> None:
        for start in range(0, KEYS, 1000):
            with db.write_batch() as batch:
                for key in shuffled[start : start + 1000]:
                    batch.put(key, values[0])

    def large(db: kvstore.DB) -> None:
        value = dice.randbytes(4096)
        for key in shuffled[:LARGE]:
            db.put(key, value)

    with tempfile.TemporaryDirectory() as folder:
        with kvstore.open(Path(folder, "sequential")) as db:
            timed("fill sequential", lambda: fill(db, keys), KEYS)
        with kvstore.open(Path(folder, "random")) as db:
            timed("fill random", lambda: fill(db, shuffled), KEYS)
            timed("overwrite", lambda: fill(db, shuffled), KEYS)
            timed("read random, memory", lambda: read(db), KEYS)
            timed("scan, memory", lambda: scan(db), KEYS)
            db.flush()
            db.compact_range()
            read(db)
            timed("read random, tables", lambda: read(db), KEYS)
            timed("scan forward, tables", lambda: scan(db), KEYS)
            timed("scan reverse, tables", lambda: scan(db, reverse=True), KEYS)
            timed("read missing, tables", lambda: read(db, b"x"), KEYS)
            timed("seek + 10 next", lambda: seek(db), LARGE)
            timed("multi_get of 100", lambda: multi_get(db), KEYS)
            timed("delete", lambda: delete(db), KEYS)
        with kvstore.open(Path(folder, "batches")) as db:
            timed("batches of 1000", lambda: batches(db), KEYS)
        with kvstore.open(Path(folder, "large")) as db:
            timed("fill random, 4 KiB", lambda: large(db), LARGE)
    print(json.dumps({name: round(microseconds, 3) for name, microseconds in told.items()}))


if __name__ == "__main__":
    main()
