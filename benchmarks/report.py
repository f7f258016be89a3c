"""Markdown tables of pytest-benchmark JSON files that runs of the benchmarks left.

    python -m benchmarks.report FILE...

Engines: microseconds an operation, the fastest of all turns of all runs; the ratios say how many
times faster kvstore is: than the faster of plyvel and rocksdict, and than lmdb. Servers: kvd beside
etcd, kvd with five replicas in a process, and the goals that are a figure each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.measuring.goals import Goal, goal_table
from benchmarks.measuring.speed import speed_table

ENGINES = ("kvstore", "plyvel", "rocksdict", "lmdb")


def speed_of_engines(benchmarks: list[dict[str, Any]]) -> list[str]:
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


def engine_tables(benchmarks: list[dict[str, Any]]) -> list[str]:
    measured = [each for each in benchmarks if "engine" in each["extra_info"]]
    if not measured:
        return []
    info = measured[0]["extra_info"]
    head = f"{info['keys']:,} keys of 16 bytes, values of {info['value_bytes']} bytes"
    return [head, "", *speed_of_engines(measured), "", *footprint_table(measured), ""]


def server_tables(benchmarks: list[dict[str, Any]]) -> list[str]:
    found: list[str] = []
    for kind, head in (
        ("point", "Three members, kvd beside etcd; medians of servers that take turns"),
        ("embedded_point", "Five replicas in one process"),
    ):
        points = [b["extra_info"][kind] for b in benchmarks if kind in b["extra_info"]]
        if points:
            found += [head, "", *speed_table(points), ""]
    goals = [Goal(**goal) for b in benchmarks for goal in b["extra_info"].get("goals", ())]
    return [*found, *goal_table(goals), ""] if goals else found


def main() -> None:
    benchmarks = [
        each for file in sys.argv[1:] for each in json.loads(Path(file).read_text())["benchmarks"]
    ]
    lines = [*engine_tables(benchmarks), *server_tables(benchmarks)]
    if not lines:
        sys.exit("nothing that makes a table in these files")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
