"""Markdown tables of the JSON files that runs of the benchmarks left.

    python -m benchmarks.report [--cpu] FILE...

Engines (`python -m benchmarks.engine`): medians of all turns of all files with their spread, ratios
to each peer, and where kvstore loses; with --cpu processor time of all threads instead of the
clock's. Servers (pytest-benchmark): kvd beside etcd, kvd with five replicas in a process, and the
goals that are a figure each.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.engine.tables import engine_report
from benchmarks.measuring.goals import Goal, goal_table
from benchmarks.measuring.speed import speed_table

# More than the rounds of any run.
RUN_TURNS = 1_000_000


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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--cpu", action="store_true", help="processor time of engines")
    asked = parser.parse_args()
    documents = [json.loads(file.read_text()) for file in asked.files]
    benchmarks = [each for document in documents for each in document.get("benchmarks", ())]
    lines = [*engine_report(engine_turns(documents), cpu=asked.cpu), *server_tables(benchmarks)]
    if not lines:
        sys.exit("nothing that makes a table in these files")
    print("\n".join(lines))


def engine_turns(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of several runs; a turn of each run counts as another."""
    turns = []
    for number, document in enumerate(documents):
        for turn in document.get("engine_turns", ()):
            turns.append({**turn, "turn": number * RUN_TURNS + turn["turn"]})
    return turns


if __name__ == "__main__":
    main()
