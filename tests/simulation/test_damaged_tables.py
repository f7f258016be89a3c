"""Simulated clusters under load, whose tables are damaged and made whole by their rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvstore.errors import Error
from kvstore.replica import range_repair
from kvstore.replica.range_repair import RangeRepair
from kvstore.state import StateMachine
from tests.simulator import simulation
from tests.simulator.agenda import MILLISECOND
from tests.simulator.plan import Plan, draw
from tests.simulator.process import STATE_DIRECTORY, Process
from tests.simulator.troubles import Troubles

SEEDS_MAX = 16
KINDS = ("power loss", "isolate leader", "kill", "bit flip", "bit flip", "bit flip")


def drawn(seed: int) -> Plan:
    """With blocks and values of which a state of this size has many."""
    plan = draw(seed)
    engine = replace(plan.replica.engine, block_size=256)
    return replace(
        plan,
        troubles=KINDS,
        trouble_pause_us=400 * MILLISECOND,
        keys=60,
        value_bytes_max=3000,
        replica=replace(plan.replica, engine=engine),
    )


def a_table(troubles: Troubles, process: Process) -> str | None:
    """Of the state, what is durable: damage at rest."""
    unsynced = process.disk.unsynced_files()
    paths = [
        path
        for path in process.disk.files()
        if path.startswith(STATE_DIRECTORY) and path.endswith(".sst") and path not in unsynced
    ]
    return troubles._rng.choice(paths) if paths else None


def test_states_are_equal_after_their_tables_were_made_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each promise is kept, and all members end with the same state: simulate() sees to that."""
    by_range = 0
    installed = RangeRepair._installed

    def count(self: RangeRepair, machine: StateMachine, number: int, outcome: bool | Error) -> None:
        nonlocal by_range
        before = self._counters.repairs_by_range
        installed(self, machine, number, outcome)
        by_range += self._counters.repairs_by_range - before

    monkeypatch.setattr(range_repair, "SHARE", 0)  # a few kilobytes are much of these states
    monkeypatch.setattr(RangeRepair, "_installed", count)
    monkeypatch.setattr(Troubles, "_damageable", a_table)
    monkeypatch.setattr(simulation, "draw", drawn)
    for seed in range(5005, 5005 + SEEDS_MAX):
        simulation.simulate(seed)
        if by_range >= 2:
            return
    raise AssertionError(f"{by_range} tables were made whole by their rows in {SEEDS_MAX} seeds")
