"""Can the engine's tests see? Plants known bugs into a copy of its source and runs the tests.

``python -m tests.engine_planted`` in a checkout that is built, or with the names of some patches of
``tests/engine_planted/patches``. Ends with 1 unless each bug was found by the test that it names.
"""

from __future__ import annotations

import subprocess
import sys
import time

import click

from tests.engine_planted.hunting import PATCHES, hunt, planted


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1)
@click.option("--keep", is_flag=True, help="Leave the patched copies in build/engine_planted.")
def main(names: tuple[str, ...], keep: bool) -> None:
    chosen = [PATCHES / f"{name}.patch" for name in names] or sorted(PATCHES.glob("*.patch"))
    for patch in chosen:
        if not patch.exists():
            raise click.UsageError(f"there is no {patch}")
    missed = 0
    for patch in chosen:
        began = time.monotonic()
        try:
            hunted = hunt(planted(patch), keep=keep)
        except subprocess.CalledProcessError as error:
            click.echo(f"{patch.stem}: broken\n{error.stdout or ''}{error.stderr or ''}")
            missed += 1
            continue
        missed += not hunted.how
        took = time.monotonic() - began
        click.echo(f"{patch.stem} ({took:.0f} s): {hunted.how or 'NOT FOUND'}")
    click.echo(f"\n{len(chosen)} planted, {len(chosen) - missed} found")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
