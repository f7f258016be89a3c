"""Open after-crash disks of a library's database and of a cluster's members until there are enough.

Each workload is drawn from a seed. Ends with 1, and the command that makes the very disk again,
when one doesn't hold what it must.
"""

from __future__ import annotations

import sys
import time
from itertools import count

import click

from tests.crash.states.library import LibraryStates
from tests.crash.states.member import MemberStates
from tests.crash.states.moments import Case, Tally

KINDS = {"library": LibraryStates, "member": MemberStates}


def run(kind: str, states: int, seed: int, ways: int) -> Tally:
    """Workloads from ``seed`` on, until so many different disks were opened."""
    tally = Tally()
    for number in count(seed):
        KINDS[kind](number, ways, tally).run()
        if len(tally.states) >= states:
            return tally
    raise AssertionError("unreachable")


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("kinds", nargs=-1, type=click.Choice(list(KINDS)))
@click.option("--states", type=click.IntRange(1), default=20_000, show_default=True, help="In all.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the first workload.")
@click.option("--ways", type=click.IntRange(1), default=6, show_default=True, help="At a moment.")
@click.option("--case", metavar="MOMENT:WAY", help="Only this disk of the seed's workload.")
def main(kinds: tuple[str, ...], states: int, seed: int, ways: int, case: str | None) -> None:
    chosen = kinds or tuple(KINDS)
    if case is not None:
        moment, way = map(int, case.split(":"))
        for kind in chosen:
            KINDS[kind](seed, ways, Tally(), Case(moment, way)).run()
        return
    click.echo("| | moments | disks | different | s |\n|---|---|---|---|---|")
    for kind in chosen:
        began = time.monotonic()
        try:
            tally = run(kind, states // len(chosen), seed, ways)
        except AssertionError as error:
            click.echo(f"{kind}: {error}: {error.__cause__!r}", err=True)
            sys.exit(1)
        click.echo(
            f"| {kind} | {tally.moments:,} | {tally.disks:,} | {len(tally.states):,} "
            f"| {time.monotonic() - began:.0f} |"
        )


if __name__ == "__main__":
    main()
