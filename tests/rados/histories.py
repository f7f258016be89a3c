"""Histories of clients of two real gateways, while OSDs, the monitor and gateways are hurt.

    python -m tests.rados.histories [--seed N] [--seconds 600] [--only primary monitor]

Eight clients put, get and delete five keys, each try at either gateway, with the same request id at
the other one when it came to nothing. For each fault: what became of the tries, whether all ended
by their deadline, and whether the history is linearizable; at the end all histories are checked
again with all keys read once more, so that nothing acknowledged is lost. The seed says what is hurt
in which order, and what clients do; what of it meets is the machine's. Ends with 1 if a promise was
broken.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from kvstore.beyond.rados.opening import open_pool
from tests.chaos.load import Load, Verdict
from tests.rados.callers import DEADLINES_S, Caller, Tries
from tests.rados.conftest import address_in, write_config
from tests.rados.hurting import FAULTS, REFUSES, SERVES, GatewayProcess, Scene
from tests.simulator.linearizability import Kind
from tools.rados_cluster import RadosCluster, rados_cluster

__all__ = ["Histories"]

CLIENTS = 8
HOLD_S = 1.5
"""How long a fault lasts beyond the time that calls take to come back."""
SETTLED_S = 0.3
"""After a fault that lets no write through: until then an OSD may run on that is being stopped."""
LATE_S = 2.0
"""By so much a try may outlive its deadline, as its client sees it, on a machine that is busy."""
ENDS_NO_CALL = ("gateway stopped",)
"""A gateway that stands still: its own deadline ends nothing there."""


@dataclass
class Outcome:
    """What came of one fault. ``gap_s``: the longest time without an answer while it was there;
    ``healed_s``: after that until 20 writes were acknowledged."""

    name: str
    tries: Tries
    operations: int = 0
    gap_s: float = 0.0
    healed_s: float = 0.0
    lasted_s: float = 0.0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        ended = ", ".join(f"{count} {code}" for code, count in self.tries.ended.most_common())
        return (
            f"{self.name}: {self.operations} operations ({ended}; {self.tries.again} sent again); "
            f"{self.gap_s:.1f} s without an answer, again {self.healed_s:.1f} s after, latest "
            f"{max(0.0, self.tries.late_s):.2f} s behind its deadline"
        )


class Histories:
    """Two gateways and their clients; a context manager."""

    def __init__(self, cluster: RadosCluster, directory: Path, seed: int) -> None:
        self._cluster = cluster
        self._directory = directory
        self._seed = seed
        self._stack = ExitStack()
        self._loads: list[Load] = []
        self.outcomes: list[Outcome] = []
        namespace = f"histories-{seed}"
        opened = open_pool(address_in(cluster, namespace))
        salt = opened.marker.salt
        opened.objects.close()
        self.scene = Scene(cluster, [], namespace, salt, random.Random(seed), [])

    def __enter__(self) -> Self:
        config = write_config(self._cluster, self._directory, self.scene.namespace)
        for name in ("one", "two"):
            gateway = GatewayProcess(self._directory / name, config)
            self._stack.callback(gateway.close)
            self.scene.gateways.append(gateway)
        for gateway in self.scene.gateways:
            gateway.kvd.wait_serving()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def hurt(self, name: str) -> Outcome:
        """One fault under a load of its own."""
        deadlines_s = DEADLINES_S if name in ENDS_NO_CALL else (*DEADLINES_S, None)
        outcome = Outcome(name, Tries(deadlines_s))
        number = len(self._loads)
        seed = 1000 * self._seed + CLIENTS * number
        load = Load(self._connect(outcome.tries), f"{number}", CLIENTS, seed=seed)
        self._loads.append(load)
        self.outcomes.append(outcome)
        self.scene.keys = load.keys
        began = time.monotonic()
        try:
            with load:
                load.wait_for_writes(50)
                self._play(load, outcome)
        except TimeoutError as late:
            outcome.violations.append(str(late))
        self._judge(load, outcome)
        outcome.operations = len(load.history)
        if outcome.tries.late_s > LATE_S:
            words = f"a call outlived its deadline by {outcome.tries.late_s:.2f} s"
            outcome.violations.append(words)
        outcome.lasted_s = time.monotonic() - began
        return outcome

    def _play(self, load: Load, outcome: Outcome) -> None:
        play = FAULTS[outcome.name](self.scene)
        promise = next(play)
        injected = time.monotonic()
        try:
            if promise == SERVES:
                load.wait_for_writes(20)
            time.sleep(HOLD_S)
        finally:
            healing = time.monotonic()
            next(play, None)
        if promise == REFUSES:
            outcome.violations += _forbidden(load, injected + SETTLED_S, healing)
        outcome.gap_s = load.longest_gap(injected, healing)
        load.wait_for_writes(20)
        outcome.healed_s = time.monotonic() - healing

    def _judge(self, load: Load, outcome: Outcome) -> None:
        if load.failures:
            outcome.violations += map(str, load.failures)
            return
        report = load.judge()
        if report.verdict is not Verdict.LINEARIZABLE:
            outcome.violations.append(f"the history is {report.verdict.value}: {report.story}")

    def judge_again(self) -> None:
        """Read everything that any load wrote once more, but where something was broken anyway."""
        for load, outcome in zip(self._loads, self.outcomes, strict=True):
            if not outcome.violations:
                self._judge(load, outcome)

    def _connect(self, tries: Tries) -> Any:
        addresses = [gateway.address for gateway in self.scene.gateways]
        rng = random.Random(self._seed + len(self._loads))
        return lambda patience_s: Caller(
            addresses, random.Random(rng.getrandbits(64)), tries, patience_s
        )

    def violations(self) -> list[str]:
        """All that was broken, in words, with what hurts the same in the same order."""
        found = [f"{one.name}: {words}" for one in self.outcomes for words in one.violations]
        return [*found, f"again: {self.command()}"] if found else []

    def command(self) -> str:
        """See :meth:`violations`."""
        seconds = int(sum(outcome.lasted_s for outcome in self.outcomes)) + 1
        names = " ".join(f"'{name}'" for name in sorted({one.name for one in self.outcomes}))
        run = f"python -m tests.rados.histories --seed {self._seed} --seconds {seconds}"
        return f"{run} --only {names}"


def _forbidden(load: Load, begin: float, end: float) -> list[str]:
    """Writes that were called and acknowledged within the time. One that was done before it may be
    acknowledged then: a retry only reads."""
    return [
        f"acknowledged by less than min_size: {one}"
        for one in load.history
        if one.kind is not Kind.GET
        and one.returned is not None
        and begin * 1e9 < one.called
        and one.returned < end * 1e9
    ]


def in_order(rng: random.Random, only: Sequence[str]) -> list[str]:
    """All faults whose names contain one of these, shuffled."""
    names = [name for name in FAULTS if any(part in name for part in only)]
    rng.shuffle(names)
    return names


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--only", nargs="+", default=[""], help="faults whose name contains this")
    asked = parser.parse_args(arguments)
    print(f"again: python -m tests.rados.histories --seed {asked.seed}")
    rng = random.Random(asked.seed)
    with (
        rados_cluster(cephx=True) as cluster,
        tempfile.TemporaryDirectory(prefix="kvgateways-") as directory,
        Histories(cluster, Path(directory), asked.seed) as histories,
    ):
        until = time.monotonic() + asked.seconds
        while time.monotonic() < until:
            for name in in_order(rng, asked.only):
                outcome = histories.hurt(name)
                print(outcome, flush=True)
                if time.monotonic() > until:
                    break
        histories.judge_again()
        total = sum(outcome.operations for outcome in histories.outcomes)
        print(f"{len(histories.outcomes)} faults, {total} operations")
        print(*histories.violations(), sep="\n")
        return 1 if histories.violations() else 0


if __name__ == "__main__":
    sys.exit(main())
