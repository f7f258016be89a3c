"""Does a unit test see what the simulator doesn't? Plants such bugs and runs that test alone.

``python -m tests.simulator.unseen`` in a checkout that is built: each file of
``tests/simulation/planted/unseen`` is a patch whose head names, after ``Seen by:``, a test that
fails with it. Ends with 1 unless each does.
"""

from __future__ import annotations

import concurrent.futures
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from tests.simulator.planted import PATCHES, ROOT, plant

__all__ = ["is_seen", "named_test"]

TIMEOUT_S = 300
_PYTEST = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider")
_SEEN_BY = re.compile(r"^Seen by: (\S+)$", re.MULTILINE)


def named_test(patch: Path) -> str:
    """The test that sees ``patch``, as pytest names it. Raises ValueError where none is named."""
    found = _SEEN_BY.search(patch.read_text())
    if found is None:
        raise ValueError(f"{patch} names no test")
    return found[1]


def is_seen(patch: Path) -> bool:
    """Whether the test that ``patch`` names fails with it.

    Raises RuntimeError when there is no such test, or it can't be run.
    """
    with tempfile.TemporaryDirectory(prefix="kvstore-planted-") as name:
        directory = Path(name)
        plant(patch, directory)
        ran = subprocess.run(
            [*_PYTEST, named_test(patch)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(directory / "src")},
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    if ran.returncode not in (0, 1):
        raise RuntimeError(f"{named_test(patch)} can't be run:\n{ran.stdout}{ran.stderr}")
    return ran.returncode == 1


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("patches", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    show_default="one for each processor",
    help="Tests side by side.",
)
def main(patches: tuple[Path, ...], jobs: int) -> None:
    chosen = list(patches) or sorted((PATCHES / "unseen").glob("*.patch"))
    if not chosen:
        raise click.UsageError(f"no patches in {PATCHES / 'unseen'}: run this in a checkout")
    missed = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for patch, seen in zip(chosen, pool.map(is_seen, chosen), strict=True):
            missed += not seen
            click.echo(f"{'seen' if seen else 'MISSED':6} {patch.stem}: {named_test(patch)}")
    click.echo(f"\n{len(chosen)} planted, {len(chosen) - missed} seen")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
