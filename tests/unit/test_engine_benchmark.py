"""The benchmark of the engine counts what it says it counts, and its workloads run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from benchmarks.engine.data import SHAPES, Data
from benchmarks.engine.observing import (
    anonymous_bytes,
    drain,
    own_heap_trimmed,
    percentile,
    timing_pairs,
)
from benchmarks.engine.peers.contract import Budget
from benchmarks.engine.sections import CORE, SECTIONS, choose
from benchmarks.engine.tables import engine_report
from benchmarks.engine.turns import Runner
from benchmarks.engine.workloads import loops
from benchmarks.report import engine_turns

ROOT = Path(__file__).resolve().parents[2]
COUNT = 500

# One of each workload but those that take seconds by their nature, or a hundred stores.
QUICK = (
    "fills", "steady-random", "memory-paths", "reads-none-4k", "ycsb", "defaults-reads", "opening",
    "killed", "queue", "readers", "awaited", "busy", "footprint",
)  # fmt: skip


def turn(engine: str, number: int, value: float, unit: str = "µs") -> dict[str, Any]:
    figures = {"get": {"value": value, "unit": unit, "cpu": None}}
    return {
        "section": "reads", "title": "Reads", "data": "keys", "engine": engine, "turn": number,
        "figures": figures,
    }  # fmt: skip


def test_a_table_has_medians_with_their_spread_and_ratios_of_rounds() -> None:
    turns = [turn("kvstore", n, value) for n, value in enumerate((1.0, 2.0, 4.0))]
    turns += [turn("lmdb", n, value) for n, value in enumerate((3.0, 2.0, 4.0))]
    told = engine_report(turns)
    assert told[-1] == "| get, µs | 2 (150%) | 3 (67%) | 1.00 (1.00 to 3.00) |"
    assert "better in 0 of 1 lines, worse in 0, and in 1 the turns disagree" in "\n".join(told)


def test_the_headline_names_what_is_worse_in_every_turn() -> None:
    turns = [turn("kvstore", n, 2.0) for n in range(2)] + [turn("plyvel", n, 1.0) for n in range(2)]
    told = engine_report(turns)
    assert told[-1].endswith("| **0.50** |")
    assert "worse in 1" in "\n".join(told)
    assert "Worst: get (reads) 0.50." in "\n".join(told)


def test_what_is_no_time_and_no_size_is_in_no_ratio() -> None:
    told = engine_report([turn("kvstore", 0, 2.0, "threads"), turn("plyvel", 0, 1.0, "threads")])
    assert told[-1] == "| get, threads | 2 | 1 |  |"


def test_a_failed_turn_is_told() -> None:
    failed = {**turn("plyvel", 0, 1.0), "failure": "it ended with -11"}
    del failed["figures"]
    told = engine_report([turn("kvstore", 0, 1.0), failed])
    assert told[-1] == "- **LevelDB failed in turn 1**: it ended with -11"


def test_turns_of_several_runs_are_turns_of_their_own() -> None:
    runs = [{"engine_turns": [turn("kvstore", 0, value)]} for value in (1.0, 3.0)]
    assert engine_report(engine_turns(runs))[-1] == "| get, µs | 2 (100%) |"


@pytest.mark.parametrize("shape", SHAPES)
def test_keys_are_as_they_are_described(shape: str) -> None:
    data = Data(shape, COUNT, 100)
    assert len(set(data.ordered)) == COUNT
    assert sorted(data.shuffled) == data.ordered != data.shuffled
    lengths = set(map(len, data.ordered))
    assert lengths <= (set(range(110, 131)) if shape == "paths" else {16})
    there = set(data.ordered)
    assert there.isdisjoint(data.missing("a", COUNT))
    assert there.isdisjoint(data.added("a", COUNT))
    assert there.issuperset(data.uniform("a", COUNT))


def test_a_warm_up_draws_other_keys_than_those_that_are_measured() -> None:
    data = Data("decimal", COUNT, 100)
    assert data.uniform("warm 0", COUNT) != data.uniform("read 0", COUNT)
    assert data.uniform("read 0", COUNT) != data.uniform("read 1", COUNT)


def test_popular_keys_are_asked_for_more_often_and_differ_by_place() -> None:
    data = Data("random", COUNT, 100)
    asked = data.popular("a", "A", 5000)
    counts = sorted((asked.count(key) for key in set(asked)), reverse=True)
    assert counts[0] > 10 * 5000 // COUNT
    assert max(set(asked), key=asked.count) != max(
        set(other := data.popular("a", "B", 5000)), key=other.count
    )


def test_draining_waits_for_what_another_thread_writes(tmp_path: Path) -> None:
    written = 0

    def write() -> None:
        nonlocal written
        with (tmp_path / "file").open("wb", buffering=0) as file:
            for _ in range(20):
                written += file.write(bytes(1 << 16))
                os.fsync(file.fileno())

    thread = threading.Thread(target=write)
    thread.start()
    drain()
    thread.join(0)
    assert written == 20 << 16


def test_memory_that_was_free_before_counts_once_it_is_used() -> None:
    # Small enough to come from the heap; the last keeps it from being given back at once.
    kept = [bytes(1000) for _ in range(50_000)]
    end = bytes(1000)
    kept.clear()
    own_heap_trimmed()
    before = anonymous_bytes()
    kept = [bytes(1000) for _ in range(50_000)]
    assert anonymous_bytes() - before > 40_000_000
    assert len(end) == 1000


def test_calls_with_two_arguments_are_timed_each() -> None:
    called: dict[bytes, bytes] = {}
    taken = timing_pairs(called.__setitem__, iter([(b"a", b"1"), (b"b", b"2")]))
    assert called == {b"a": b"1", b"b": b"2"}
    assert len(taken) == 2
    assert min(taken) > 0


def test_batches_hold_each_key_once() -> None:
    data = Data("decimal", COUNT, 100)
    batches = loops.batches_of(data.shuffled, data, 150)
    assert [len(batch) for batch in batches] == [150, 150, 150, 50]
    assert [key for batch in batches for key, _ in batch] == data.shuffled


def test_leveldb_is_settled_into_one_level(tmp_path: Path) -> None:
    pytest.importorskip("plyvel")
    from benchmarks.engine.peers.leveldb import LevelDb

    data = Data("decimal", 30_000, 100)
    store = LevelDb(tmp_path, Budget(1 << 20, 1 << 18))
    try:
        loops.put_all(store, data.shuffled, data)
        store.settle()
        files = [int(store.db.get_property(b"leveldb.num-files-at-level%d" % n)) for n in range(7)]
        assert sum(count > 0 for count in files) == 1
        assert files[0] == 0
    finally:
        store.close()


def test_a_share_makes_small_runs_larger_but_not_large_ones(tmp_path: Path) -> None:
    opening = SECTIONS["opening"]
    assert Runner(tmp_path, 3_000, 1).data_of(opening).count == 10_000
    assert Runner(tmp_path, 300_000, 1).count_of(opening) == 1_000_000
    assert Runner(tmp_path, 10_000_000, 1).count_of(opening) == 10_000_000


def test_a_percentile_is_in_microseconds() -> None:
    taken = list(range(1000, 101_000, 1000))
    assert percentile(taken, 0.5) == 51.0
    assert percentile(taken, 0.999) == 100.0


def test_no_engine_gets_a_buffer_that_leveldb_would_clip() -> None:
    with pytest.raises(ValueError, match="isn't the same for all"):
        Budget(0, 1 << 31)


def test_sections_are_chosen_by_name_and_pattern() -> None:
    assert {section.name for section in choose(["core"])} == set(CORE)
    assert len(choose(["all"])) == len(SECTIONS)
    assert [section.name for section in choose(["fill*-4k"])] == ["fills-4k"]
    # Those with the same data together, so that it is made once.
    together = [section.name for section in choose(["fills", "steady", "fills-4k", "steady-4k"])]
    assert together == ["fills", "steady", "fills-4k", "steady-4k"]
    with pytest.raises(KeyError):
        choose(["nothing"])


def test_workloads_run_and_leave_nothing_but_their_document(tmp_path: Path) -> None:
    document = tmp_path / "engine.json"
    folder = tmp_path / "stores"
    arguments = ["--engines", "kvstore", "--keys", str(COUNT), "--rounds", "1"]
    arguments += ["--json", os.fspath(document), "--folder", os.fspath(folder)]
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine", *QUICK, *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    turns = json.loads(document.read_text())["engine_turns"]
    assert {told["section"] for told in turns} == set(QUICK)
    assert all(told["figures"] for told in turns)
    assert list(folder.iterdir()) == []
