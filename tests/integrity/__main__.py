"""Damage real data in every way that cases.py knows; tell what came of it, by region and code.

Each byte of small files and of what holds large ones together is damaged by itself, of the rest a
sample; files are cut, shifted, zeroed, exchanged, taken from an older moment or another database,
and removed. Ends with 1 if anything went unnoticed.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click

from tests.integrity.cases import Case, cases_of, region_of
from tests.integrity.forms import all_sources, judge_of
from tests.integrity.report import Tally
from tests.integrity.verdicts import GOOD, Outcome
from tests.integrity.workers import judge_safely, judged


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--cases", "samples", type=click.IntRange(1), default=200, show_default=True,
    help="Bytes damaged of the payloads of each file.",
)  # fmt: skip
@click.option("--seed", default=1, show_default=True, help="Draws other bytes and ranges.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True)
@click.option("--only", multiple=True, help="Sources whose name contains this.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write JSON.")
@click.option("--case", "repeated", help="One case, in the words that were printed.")
def main(
    samples: int,
    seed: int,
    jobs: int,
    only: tuple[str, ...],
    json_path: Path | None,
    repeated: str | None,
) -> None:
    began = time.monotonic()
    sources = all_sources()
    judge = judge_of(sources)
    if repeated is not None:
        name, *words = repeated.split()
        verdict = judge_safely(Case(name, tuple(words)), judge)
        click.echo(f"{verdict.outcome} {verdict.code} {verdict.detail}")
        sys.exit(verdict.outcome not in GOOD)
    chosen = [
        source for name, source in sources.items() if not only or any(part in name for part in only)
    ]
    for source in chosen:
        verdict = judge(Case(source.name, ("cut", next(iter(source.files)), str(1 << 40))))
        if verdict.outcome is not Outcome.NO_EFFECT:
            raise click.ClickException(f"{source.name}, undamaged: {verdict}")
    tally = Tally()
    for source in chosen:
        cases = cases_of(source, samples, seed)
        started = time.monotonic()
        for case, verdict in judged(cases, judge, jobs, source.seconds_max):
            tally.add(case, source.form, region_of(source, case), verdict)
        took = time.monotonic() - started
        click.echo(f"{source.name}: {len(cases)} cases, {took:.0f} s", err=True)
    seconds = round(time.monotonic() - began)
    click.echo(tally.table())
    click.echo(f"\n{tally.cases} cases in {seconds} s, undetected: {len(tally.undetected)}")
    if tally.undetected:
        click.echo(tally.examples())
    if json_path is not None:
        tally.write(json_path, samples=samples, seed=seed, seconds=seconds)
    sys.exit(bool(tally.undetected))


if __name__ == "__main__":
    main()
