"""Every structure stays within its option, and a process that goes on and on doesn't grow.

Not beside the engine's other tests: a sanitizer, with which those run too, holds on to memory.
"""

import random
import subprocess
import sys
from pathlib import Path

from kvstore.engine import DB

MIB = 1 << 20
KEYS = 4000
WRITES = 3000
ROUNDS = 30
# Least at the end beyond least near the beginning: 120 MiB and 300,000 calls pass between them.
BEGINNING = slice(5, 10)
END = slice(25, 30)
MOST_GROWTH = 16 * MIB


def resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def use(db: DB, chance: random.Random) -> None:
    """A bit of everything: some 6 MiB written, flushed, compacted and read."""
    keys = [b"%08d" % chance.randrange(KEYS) for _ in range(WRITES)]
    snapshot = db.snapshot()
    for number, key in enumerate(keys):
        if number % 10 == 0:
            db.delete(key)
        else:
            db.put(key, chance.randbytes(2000))
    with db.write_batch(transaction=True) as batch:
        for key in keys[:200]:
            batch.put(key, key * 20)
    db.delete_range(b"%08d" % 10, b"%08d" % 30)
    for key in keys:
        db.get(key)
    db.multi_get(keys)
    with db.iterator(reverse=True) as entries:
        backward = sum(1 for _ in entries)
    with db.iterator() as entries:
        assert sum(1 for _ in entries) == backward
    assert sum(1 for _ in snapshot) <= KEYS
    snapshot.close()
    for key in keys[:200]:
        with db.iterator(start=key) as entries:
            next(entries, None)


def run(path: str) -> None:
    chance = random.Random(1)
    resident = []
    with DB(
        path, write_buffer_size=MIB, lru_cache_size=MIB, max_file_size=MIB // 4, max_open_files=20
    ) as db:
        for _ in range(ROUNDS):
            use(db, chance)
            db.compact_range()
            stats = db.stats()
            assert stats["cache"]["used_bytes"] <= MIB
            assert stats["open_tables"] <= 20
            assert stats["memtable_bytes"] <= 2 * MIB
            assert stats["log"]["segments"] <= 4
            assert stats["table_bytes"] <= 4 * KEYS * 2008
            resident.append(resident_bytes())
    grown = min(resident[END]) - min(resident[BEGINNING])
    assert grown <= MOST_GROWTH, f"{grown / MIB:.1f} MiB more after {ROUNDS} rounds"


def test_memory_does_not_grow_over_a_long_run(tmp_path: Path) -> None:
    # A process of its own: what the other tests left would hide it.
    subprocess.run([sys.executable, __file__, str(tmp_path / "db")], check=True, timeout=120)


if __name__ == "__main__":
    run(sys.argv[1])
