"""Simulate clusters: one seed in detail, or many side by side."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import random
import sys
import time
from collections import Counter

import click

from tests.simulator.simulation import Failed, Outcome, attempt, simulate


def _one(seed: int, trace: bool) -> bool:
    try:
        outcome = simulate(seed, print if trace else None)
    except Failed as error:
        click.echo(str(error), err=True)
        return False
    troubles = ", ".join(f"{kind} {count}" for kind, count in sorted(outcome.troubles.items()))
    click.echo(
        f"seed {seed}: every promise kept: {outcome.operations} operations, "
        f"{outcome.committed} entries, {outcome.terms} terms, {outcome.refused} refused, "
        f"{outcome.steps} steps, {outcome.etcd} calls of etcd's API, {outcome.events} events, "
        f"{outcome.expired} leases ran out; "
        f"troubles: {troubles or 'none'}; trace {outcome.digest}"
    )
    return True


def _many(seeds: range, jobs: int) -> bool:
    began = time.monotonic()
    failed = operations = steps = refused = 0
    troubles: Counter[str] = Counter()
    context = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool,
        click.progressbar(
            pool.map(attempt, seeds, chunksize=4), length=len(seeds), file=sys.stderr
        ) as outcomes,
    ):
        for outcome in outcomes:
            if isinstance(outcome, Outcome):
                operations += outcome.operations
                steps += outcome.steps
                refused += outcome.refused
                troubles.update(outcome.troubles)
            else:
                failed += 1
                click.echo(f"\n{outcome}\n")
    click.echo(
        f"{len(seeds)} seeds from {seeds.start} on, {failed} failed: {operations} operations, "
        f"{refused} refused, {steps} steps, {time.monotonic() - began:.0f} s"
    )
    click.echo(
        "troubles: " + ", ".join(f"{kind} {count}" for kind, count in troubles.most_common())
    )
    return not failed


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=click.IntRange(0), help="Run this one seed.")
@click.option("--trace", is_flag=True, help="With --seed: print every line of its story.")
@click.option("--seeds", type=click.IntRange(1), default=100, show_default=True, help="How many.")
@click.option("--first", type=click.IntRange(0), help="The first of them.  [default: random]")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    show_default="one for each processor",
    help="Processes side by side.",
)
def main(seed: int | None, trace: bool, seeds: int, first: int | None, jobs: int) -> None:
    if trace and seed is None:
        raise click.UsageError("--trace needs --seed")
    if seed is not None:
        sys.exit(not _one(seed, trace))
    begin = first if first is not None else random.SystemRandom().randrange(10**9)
    sys.exit(not _many(range(begin, begin + seeds), jobs))


if __name__ == "__main__":
    main()
