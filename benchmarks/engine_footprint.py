"""Peak memory and size on disk of one engine, in a process of its own.

    python -m benchmarks.engine_footprint ENGINE PATH KEYS VALUE_BYTES

Keys and values are made one by one, so that next to nothing but the engine holds memory. Prints
JSON: bytes beyond what the process had before, and bytes on disk filled and compacted.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from benchmarks.engines import ENGINES, WRITE_BUFFER_BYTES, disk_bytes

CACHE_BYTES = 64 << 20
# Coprime to every count of keys that isn't its multiple: i * STRIDE % keys visits them all.
STRIDE = 1_000_000_007


def memory_bytes(field: str) -> int:
    """Of /proc/self/status; anonymous memory and pages of files (a map, ours or lmdb's) alike."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) << 10
    raise ValueError(field)


def main() -> None:
    name, path, keys, value_bytes = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
    value = random.Random(1).randbytes(value_bytes)
    before = memory_bytes("VmRSS")
    store = ENGINES[name](path, CACHE_BYTES, WRITE_BUFFER_BYTES)
    put = store.put
    for i in range(keys):
        put(b"%016d" % (i * STRIDE % keys), value)
    filled = disk_bytes(path)
    store.settle()
    get = store.get
    for i in range(0, keys, 7):
        get(b"%016d" % (i * STRIDE % keys))
    for _ in store.forward():
        pass
    peak = memory_bytes("VmHWM")
    store.close()
    print(
        json.dumps(
            {
                "peak_memory_bytes": peak - before,
                "filled_disk_bytes": filled,
                "compacted_disk_bytes": disk_bytes(path),
            }
        )
    )


if __name__ == "__main__":
    main()
