"""Can the simulator see? Plants known bugs into a copy of the source, one by one, and hunts them.

``python -m tests.simulator.planted`` in a checkout that is built: each file of
``tests/simulation/planted`` is a patch whose first lines say what it breaks. Seeds from 0 on run
against the patched copy until one fails. Ends with 1 unless each bug was found.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click

import kvstore

__all__ = ["Hunt", "describe", "hunt", "plant"]

SOURCE = Path(kvstore.__file__).parent
BUILT = ("_engine", "_state", "_service")
"""Taken as they are: patches change Python alone."""
ROOT = str(Path(__file__).parents[2])
"""The checkout: the simulator itself isn't patched."""
PATCHES = Path("tests/simulation/planted")
SECONDS_MAX = 3600
"""One hunt takes no longer."""

# What runs against the patched copy. A seed that fails in any way has found the bug.
_HUNT = """
import json, sys
from tests.simulator import Failed, simulate
for seed in range(int(sys.argv[1])):
    try:
        simulate(seed)
    except Failed as failed:
        print(json.dumps([seed, failed.why]))
        break
"""


@dataclass(frozen=True, slots=True)
class Hunt:
    """What became of one planted bug. ``seeds`` is how many it took, 0 when it wasn't found."""

    name: str
    what: str
    seeds: int
    how: str


def describe(patch: Path) -> str:
    """The words at the head of a patch, as one line; not which test sees it (``unseen.py``)."""
    head, _, _ = patch.read_text().partition("--- a/")
    words, _, _ = head.partition("Seen by:")
    return " ".join(words.split())


def plant(patch: Path, directory: Path) -> None:
    """Make ``directory`` hold a copy of the source with ``patch`` applied.

    What is compiled is shared with the original. Raises subprocess.CalledProcessError when the
    patch doesn't fit the source.
    """
    package = directory / "src" / "kvstore"
    ignored = shutil.ignore_patterns("__pycache__", *BUILT)
    shutil.copytree(SOURCE, package, ignore=ignored)
    for name in BUILT:
        (package / name).symlink_to(SOURCE / name, target_is_directory=True)
    subprocess.run(
        ["git", "apply", "-p1", str(patch.resolve())],
        cwd=directory,
        # A checkout further up must not be taken for what is to be patched.
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(directory.parent)},
        check=True,
        capture_output=True,
        text=True,
    )


def hunt(patch: Path, seeds_max: int) -> Hunt:
    """Run seeds from 0 on against the source with ``patch`` until one fails."""
    with tempfile.TemporaryDirectory(prefix="kvstore-planted-") as name:
        directory = Path(name)
        plant(patch, directory)
        ran = subprocess.run(
            [sys.executable, "-c", _HUNT, str(seeds_max)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(directory / "src"), ROOT))},
            check=True,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
        )
    if not ran.stdout:
        return Hunt(patch.stem, describe(patch), 0, "not found")
    seed, why = json.loads(ran.stdout)
    return Hunt(patch.stem, describe(patch), seed + 1, why)


def _row(hunted: Hunt) -> str:
    how = hunted.how.splitlines()[0].replace("|", "/")
    return f"| {hunted.what} | {hunted.seeds or '-'} | {how[:110]} |"


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("patches", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--seeds", type=click.IntRange(1), default=1000, show_default=True, help="At most.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    show_default="one for each processor",
    help="Hunts side by side.",
)
def main(patches: tuple[Path, ...], seeds: int, jobs: int) -> None:
    chosen = list(patches) or sorted(PATCHES.glob("*.patch"))
    if not chosen:
        raise click.UsageError(f"no patches in {PATCHES}: run this in a checkout")
    click.echo("| planted bug | seeds | seen as |\n|---|---|---|")
    missed = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for hunted in pool.map(lambda patch: hunt(patch, seeds), chosen):
            missed += not hunted.seeds
            click.echo(_row(hunted))
    click.echo(f"\n{len(chosen)} planted, {len(chosen) - missed} found")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
