"""Hurt five real kvd processes in every way that faults.py knows, under load; tell what came of it.

Clients write and read throughout, retrying with the same request ids. For each fault: how long no
call came back, and whether the history is linearizable, no acknowledged write lost, and no write
acknowledged while a majority was away. Needs root for network namespaces, tmpfs and nothing else;
nftables, iproute2, libfaketime and a C compiler. Ends with 1 if a promise was broken.
"""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from tests.chaos import faults
from tests.chaos.load import Load
from tests.chaos.members import ChaosCluster, NamespaceCluster, ProxiedCluster
from tests.simulator.linearizability import Verdict

HOLD_S = 2.0
"""How long a fault lasts beyond the time that it takes calls to come back."""
LEASE_S = 1.0
"""After a majority went away: until then calls that were under way may still come back."""
FILL_THREADS = 48


@dataclass
class Tally:
    """What became of one kind of fault."""

    gaps: list[float] = field(default_factory=list)
    operations: int = 0
    violations: list[str] = field(default_factory=list)


def hurt(
    cluster: ChaosCluster, fault: Callable[[Any], faults.Play], name: str, tally: Tally
) -> None:
    """One injection under a load of its own."""
    with Load(cluster.client, name) as load:
        load.wait_for_writes(50)
        begin = time.monotonic()
        play = fault(cluster)
        mode = next(play)
        injected = time.monotonic()
        if mode in (faults.SERVES, faults.FAILS_NONE):
            load.wait_for_writes(20)
        time.sleep(HOLD_S)
        healing = time.monotonic()
        if mode == faults.REFUSES:
            forbidden = load.writes_between(injected + LEASE_S, healing)
            if forbidden:
                tally.violations.append(f"{forbidden} writes acknowledged without a majority")
        if mode not in (faults.SERVES, faults.FAILS_NONE):
            begin = healing
        next(play, None)
        load.wait_for_writes(20)
        cluster.wait_equal()
        tally.gaps.append(load.longest_gap(begin, time.monotonic()))
    if mode == faults.FAILS_NONE and load.failed:
        tally.violations.append(f"{len(load.failed)} calls failed: {load.failed[0]}")
    report = load.judge()
    tally.operations += len(load.history)
    if report.verdict is not Verdict.LINEARIZABLE:
        tally.violations.append(f"the history is {report.verdict.value}: {report.story}")


def fill(cluster: ChaosCluster, keys: int) -> None:
    """Store so many keys of 100 bytes."""

    def part(first: int) -> None:
        with cluster.client(timeout=60) as client:
            for number in range(first, keys, FILL_THREADS):
                client.put(b"fill/%08d" % number, b"%0100d" % number)

    with ThreadPoolExecutor(FILL_THREADS) as pool:
        list(pool.map(part, range(FILL_THREADS)))


def percentile(values: list[float], share: float) -> float:
    """The smallest of ``values`` that so many of them don't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def run_all(
    cluster: ChaosCluster, kinds: dict[str, Any], rounds: int, tallies: dict[str, Tally]
) -> None:
    for number in range(rounds):
        for name, fault in kinds.items():
            began = time.monotonic()
            tally = tallies[name]
            try:
                hurt(cluster, fault, f"{name}/{number}", tally)
            except Exception:  # noqa: BLE001
                tally.violations.append(traceback.format_exc())
                click.echo(f"{name}: FAILED\n{tally.violations[-1]}", err=True)
                return
            gap = f"{tally.gaps[-1]:.2f} s without an answer"
            click.echo(f"{name}: {gap}, {time.monotonic() - began:.0f} s", err=True)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--keys", type=click.IntRange(0), default=100_000, show_default=True, help="Stored.")
@click.option("--only", multiple=True, help="Faults whose name contains this.")
def main(rounds: int, keys: int, only: tuple[str, ...]) -> None:
    def chosen(kinds: dict[str, Any]) -> dict[str, Any]:
        return {
            name: fault
            for name, fault in kinds.items()
            if not only or any(part in name for part in only)
        }

    tallies: dict[str, Tally] = defaultdict(Tally)
    for make, kinds in (
        (ProxiedCluster, chosen(faults.LOOPBACK)),
        (NamespaceCluster, chosen(faults.NAMESPACES)),
    ):
        if not kinds:
            continue
        with (
            tempfile.TemporaryDirectory(prefix="kvstore-chaos-") as directory,
            make(Path(directory), 5) as cluster,
        ):
            cluster.start()
            if make is ProxiedCluster:
                began = time.monotonic()
                fill(cluster, keys)
                click.echo(f"{keys} keys stored in {time.monotonic() - began:.0f} s", err=True)
            run_all(cluster, kinds, rounds, tallies)
    click.echo("| fault | times | no answer: p50 | p99 | max | operations | violations |")
    click.echo("|---|---|---|---|---|---|---|")
    for name, tally in tallies.items():
        gaps = tally.gaps or [float("nan")]
        figures = " | ".join(f"{percentile(gaps, share):.2f} s" for share in (0.5, 0.99, 1.0))
        click.echo(
            f"| {name} | {len(tally.gaps)} | {figures} | {tally.operations} "
            f"| {len(tally.violations)} |"
        )
    for name, tally in tallies.items():
        for violation in tally.violations:
            click.echo(f"\n{name}: {violation}")
    sys.exit(any(tally.violations for tally in tallies.values()))


if __name__ == "__main__":
    main()
