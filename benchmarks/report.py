"""Markdown tables of pytest-benchmark JSON files that runs of test_engine.py left.

    python -m benchmarks.report FILE...

Microseconds an operation, the fastest of all turns of all runs. The ratios say how many times
faster kvstore is: than the faster of plyvel and rocksdict, and than lmdb.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ENGINES = ("kvstore", "plyvel", "rocksdict", "lmdb")


def speed_table(benchmarks: list[dict[str, Any]]) -> list[str]:
    best: dict[str, dict[str, float]] = {}
    for benchmark in benchmarks:
        info = benchmark["extra_info"]
        if "operations" not in info:
            continue
        row = best.setdefault(info["workload"], {})
        taken = benchmark["stats"]["min"] / info["operations"] * 1e6
        row[info["engine"]] = min(taken, row.get(info["engine"], taken))
    lines = [
        f"| µs an operation | {' | '.join(ENGINES)} | times plyvel, rocksdict | times lmdb |",
        "|---|" + "---:|" * (len(ENGINES) + 2),
    ]
    for workload, row in best.items():
        cells = [f"{row[name]:.3g}" if name in row else "" for name in ENGINES]
        own = row.get("kvstore")
        peers = [row[name] for name in ("plyvel", "rocksdict") if name in row]
        cells.append(f"{min(peers) / own:.2f}" if own and peers else "")
        cells.append(f"{row['lmdb'] / own:.2f}" if own and "lmdb" in row else "")
        if "bare" in row:
            workload += f" (bare sync: {row['bare']:.3g})"
        lines.append(f"| {workload} | {' | '.join(cells)} |")
    return lines


def footprint_table(benchmarks: list[dict[str, Any]]) -> list[str]:
    found = {
        benchmark["extra_info"]["engine"]: benchmark["extra_info"]
        for benchmark in benchmarks
        if benchmark["extra_info"].get("workload") == "footprint"
    }
    if not found:
        return []
    lines = [f"| MiB | {' | '.join(found)} |", "|---|" + "---:|" * len(found)]
    for field, title in (
        ("peak_memory_bytes", "peak memory"),
        ("filled_disk_bytes", "on disk, filled"),
        ("compacted_disk_bytes", "on disk, compacted"),
    ):
        cells = [f"{info[field] / 2**20:.1f}" for info in found.values()]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    measured = [
        each
        for file in sys.argv[1:]
        for each in json.loads(Path(file).read_text())["benchmarks"]
        if "engine" in each["extra_info"]
    ]
    if not measured:
        sys.exit("nothing of test_engine.py in these files")
    info = measured[0]["extra_info"]
    print(f"{info['keys']:,} keys of 16 bytes, values of {info['value_bytes']} bytes\n")
    print("\n".join([*speed_table(measured), "", *footprint_table(measured)]))


if __name__ == "__main__":
    main()
