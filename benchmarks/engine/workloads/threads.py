"""Several threads on one store: readers, a writer beside readers, synced puts."""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.engine.observing import percentile, timing_each
from benchmarks.engine.peers.contract import Engine
from benchmarks.engine.turn import Turn
from benchmarks.engine.workloads import loops

__all__ = ["readers", "synced", "writer_and_readers"]

READERS = (1, 2, 4, 8, 16)
READS = 200_000
MOST_DRAWN = 300_000
MULTI = 1000
READERS_BESIDE_WRITER = 4
BESIDE_S = 3.0
PACED_PUTS_PER_S = 20_000
SYNCERS = (1, 8, 32)
SYNCS = 1000


def _side_by_side(works: Sequence[Callable[[], object]]) -> None:
    """Run each in a thread of its own; the first failure is raised when all have ended."""
    failures: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as failure:  # noqa: BLE001
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def readers(turn: Turn) -> None:
    """The same reads of tables, shared among threads; all blocks cached."""
    data = turn.data
    count = min(READS, 4 * data.count)
    with turn.store(turn.settled, turn.budget(2 * data.size)) as store:
        loops.read(store, data.ordered)
        keys = data.uniform(turn.seed("read"), count)
        one: dict[str, float] = {}
        for threads in READERS:
            shares = [keys[number::threads] for number in range(threads)]
            for name, call in (
                ("get", partial(loops.read, store)),
                (f"multi_get of {MULTI}", partial(loops.multi_get, store, size=MULTI)),
            ):
                began = time.perf_counter()
                _side_by_side([partial(call, share) for share in shares])
                taken = time.perf_counter() - began
                turn.record(f"{name}, threads: {threads}", taken / count * 1e6, "µs")
                quickest = one.setdefault(name, taken)
                if threads > 1:
                    turn.record(f"{name}, {threads} threads beside 1", quickest / taken, "times")


def writer_and_readers(turn: Turn) -> None:
    """A writer as fast as it can beside readers; then one that is paced beside one reader."""
    data = turn.data
    with turn.store(turn.copied("beside"), turn.budget()) as store:
        loops.read(store, data.uniform(turn.seed("warm"), min(data.count, 100_000)))
        _at_full_speed(turn, store)
        _paced(turn, store)


def _at_full_speed(turn: Turn, store: Engine) -> None:
    data, ended = turn.data, threading.Event()
    counts = [0] * (1 + READERS_BESIDE_WRITER)
    # Drawn before the clock runs: five threads that draw take a second of its three.
    drawn = min(data.count, MOST_DRAWN)
    written = data.uniform(turn.seed("written"), drawn)
    asked = [
        data.uniform(turn.seed(f"reader {number}"), drawn) for number in range(len(counts) - 1)
    ]

    def write() -> None:
        while not ended.is_set():
            for key in written:
                store.put(key, data.values[counts[0] % len(data.values)])
                counts[0] += 1
                if not counts[0] % 256 and ended.is_set():
                    return

    def read(number: int) -> None:
        while not ended.is_set():
            for key in asked[number - 1]:
                store.get(key)
                counts[number] += 1
                if not counts[number] % 256 and ended.is_set():
                    return

    def end() -> None:
        time.sleep(BESIDE_S)
        ended.set()

    began = time.perf_counter()
    _side_by_side(
        [write, *(partial(read, 1 + number) for number in range(READERS_BESIDE_WRITER)), end]
    )
    taken = (time.perf_counter() - began) * 1e6
    turn.record(f"put beside {READERS_BESIDE_WRITER} readers", taken / max(1, counts[0]), "µs")
    read_count = max(1, sum(counts[1:]))
    turn.record(f"get of {READERS_BESIDE_WRITER} readers beside it", taken / read_count, "µs")


def _paced(turn: Turn, store: Engine) -> None:
    data, ended = turn.data, threading.Event()
    keys = data.uniform(turn.seed("paced"), min(data.count, MOST_DRAWN))
    asked = data.uniform(turn.seed("beside"), min(READS, 4 * data.count))
    rates: list[float] = []

    def write() -> None:
        # In bursts of 2 ms: a sleep for each put would measure the sleeps.
        burst = PACED_PUTS_PER_S // 500
        began = due = time.perf_counter()
        at = 0
        while not ended.is_set():
            for _ in range(burst):
                store.put(keys[at % len(keys)], data.values[at % len(data.values)])
                at += 1
            due += 0.002
            time.sleep(max(0.0, due - time.perf_counter()))
        rates.append(at / (time.perf_counter() - began))

    taken: list[array[int]] = []

    def read() -> None:
        try:
            taken.append(timing_each(store.get, asked))
        finally:
            ended.set()

    _side_by_side([write, read])
    turn.latencies(f"get beside {PACED_PUTS_PER_S} puts/s", taken[0])
    turn.record("puts that there were beside it", rates[0], "puts/s")


def synced(turn: Turn) -> None:
    """Puts that are on the disk when they return."""
    data = turn.data
    for threads in SYNCERS:
        share = max(1, SYNCS * min(threads, 8) // threads)
        taken: list[array[int]] = []
        with turn.store(turn.fresh(f"synced{threads}"), turn.budget()) as store:

            def run(
                number: int,
                store: Engine = store,
                share: int = share,
                taken: list[array[int]] = taken,
            ) -> None:
                def put(key: bytes) -> None:
                    store.put_synced(key, data.values[0])

                start = number * share
                keys = [data.shuffled[(start + n) % data.count] for n in range(share)]
                taken.append(timing_each(put, keys))

            began = time.perf_counter()
            _side_by_side([partial(run, number) for number in range(threads)])
            each = (time.perf_counter() - began) / (share * threads) * 1e6
        name = f"put + sync, threads: {threads}"
        turn.record(name, each, "µs")
        together = [one for mine in taken for one in mine]
        turn.record(f"{name}: p99", percentile(together, 0.99), "µs")
        turn.record(f"{name}: worst", max(together) / 1e6, "ms")
    if turn.engine == "kvstore":
        turn.record("pwrite + fdatasync alone", _bare_sync(turn), "µs")


def _bare_sync(turn: Turn) -> float:
    """Of a record into a preallocated file: what the disk itself takes."""
    record = bytes(16 + turn.data.value_bytes + 48)
    file = os.open(turn.fresh("bare"), os.O_CREAT | os.O_RDWR)
    try:
        os.pwrite(file, bytes(SYNCS * len(record)), 0)
        os.fsync(file)
        began = time.perf_counter()
        for number in range(SYNCS):
            os.pwrite(file, record, number * len(record))
            os.fdatasync(file)
        return (time.perf_counter() - began) / SYNCS * 1e6
    finally:
        os.close(file)
