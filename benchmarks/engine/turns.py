"""Runs sections: engines take turns, each turn in a process of its own.

A forked process has the data without making it again, and its memory, threads and files are those
of one engine alone. Which engine goes first moves on with each round.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.engine.data import SHAPES, Data
from benchmarks.engine.observing import drain, remove
from benchmarks.engine.peers.by_name import stores_of
from benchmarks.engine.sections import Section
from benchmarks.engine.turn import Turn
from benchmarks.engine.workloads import loops

__all__ = ["Runner", "TurnFailed"]

TURN_LIMIT_S = 3600
_FORK = multiprocessing.get_context("fork")


class TurnFailed(Exception):
    """A turn's process raised, was killed or took too long."""


class Runner:
    """``folder`` is on the disk to be measured; what it makes there goes with `close`."""

    def __init__(self, folder: Path, keys: int, rounds: int) -> None:
        self.folder, self.keys, self.rounds = folder, keys, rounds
        self._data: tuple[tuple[str, int, int], Data] | None = None
        self._settled: set[Path] = set()

    def data_of(self, section: Section) -> Data:
        wanted = (section.shape, self.count_of(section), section.value_bytes)
        if self._data is None or self._data[0] != wanted:
            self._forget_settled()
            gc.unfreeze()
            self._data = None
            self._data = (wanted, Data(*wanted))
            # The collector must not walk it all each time an engine makes a few tuples.
            gc.collect()
            gc.freeze()
        return self._data[1]

    def count_of(self, section: Section) -> int:
        """A share above one is for what shows in a large store only; a million keys are one."""
        return max(100, min(round(self.keys * section.share), max(self.keys, 1_000_000)))

    def run(self, section: Section) -> Iterator[dict[str, Any]]:
        """A document of each turn, as it ends; with ``failure`` instead of figures if it failed."""
        data = self.data_of(section)
        described = f"{data.count:,} {SHAPES[data.shape]}, values of {data.value_bytes:,} bytes"
        for number in range(self.rounds):
            first = number % len(section.engines)
            for engine in (*section.engines[first:], *section.engines[:first]):
                told: dict[str, Any] = {
                    "section": section.name,
                    "title": section.title,
                    "data": described,
                    "engine": engine,
                    "turn": number,
                }
                try:
                    told["figures"] = self._turn(section, data, engine, number)
                except TurnFailed as failure:
                    told["failure"] = str(failure)
                yield told

    def close(self) -> None:
        self._forget_settled()
        remove(self.folder / "turn")

    def _turn(self, section: Section, data: Data, engine: str, number: int) -> dict[str, Any]:
        settled = self.folder / f"settled-{stores_of(engine)}-{section.defaults}"
        folder = self.folder / "turn"
        remove(folder)
        folder.mkdir()
        turn = Turn(engine, number, data, folder, settled, section.defaults)
        try:
            if section.settled and settled not in self._settled:
                _in_process(partial(_settle, turn))
                self._settled.add(settled)
            if section.before is not None:
                _in_process(partial(section.before, turn), killed=True)
            # What an earlier turn left to be written is not to be written in this one's time.
            subprocess.run(["sync", "-f", folder], check=True)
            return _in_process(partial(section.work, turn), turn)
        finally:
            remove(folder)

    def _forget_settled(self) -> None:
        for path in self._settled:
            remove(path)
        self._settled.clear()


def _settle(turn: Turn) -> None:
    with turn.store(turn.settled, turn.budget()) as store:
        loops.put_all(store, turn.data.shuffled, turn.data)
        store.settle()
        # What a compaction left to another one would run beside the reads of whoever opens it.
        drain()


def _in_process(
    work: Callable[[], None], turn: Turn | None = None, *, killed: bool = False
) -> dict[str, Any]:
    """Run it in a fork; the figures of the turn. ``killed``: it must end by SIGKILL."""
    here, there = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_child, args=(work, turn, there))
    process.start()
    there.close()
    try:
        told: dict[str, Any] = {}
        if not here.poll(TURN_LIMIT_S):
            process.kill()
            raise TurnFailed(f"took longer than {TURN_LIMIT_S} s")
        try:
            told = here.recv()
        except EOFError:
            process.join()
            if killed and process.exitcode == -signal.SIGKILL:
                return {}
            raise TurnFailed(f"its process ended with {process.exitcode}") from None
        if "failure" in told:
            raise TurnFailed(told["failure"])
        if killed:
            raise TurnFailed("it was to be killed, and went on")
        figures: dict[str, Any] = told["figures"]
        return figures
    finally:
        process.join()
        here.close()


def _child(work: Callable[[], None], turn: Turn | None, there: Connection) -> None:
    try:
        if turn is not None:
            turn.data.touch()
        work()
        figures = {} if turn is None else turn.figures
        there.send({"figures": {name: asdict(figure) for name, figure in figures.items()}})
    except Exception as failure:  # noqa: BLE001
        there.send({"failure": f"{type(failure).__name__}: {failure}"})
