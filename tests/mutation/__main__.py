"""Mutation testing: does a test fail for each small change of the code?

``make mutants PACKAGE=raft SAMPLE=200`` (``python -m tests.mutation``) takes a sample of the
mutants that cosmic-ray's operators make of a package, chosen by the seed, plants each into a copy
of the source and runs the package's tests until one fails. Those that no test sees are printed, but
for those of ``tests/mutation/equal.txt``, which change nothing, with the reason. Annotations aren't
mutated. Ends with 1 if any mutant survived.
"""

from __future__ import annotations

import ast
import concurrent.futures
import difflib
import itertools
import math
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

import kvstore
from tests.simulator.planted import BUILT, ROOT, SOURCE

EQUAL = Path(__file__).parent / "equal.txt"
SLOWNESS_MAX = 5.0
"""A run that takes so many times what it takes without a mutant, plus 10 s, hangs: it is seen."""

# The tests of each package, those that see most of it first.
TESTS = {
    "raft": ["tests/unit/raft", "tests/unit/replica/test_group.py"],
    "replica": ["tests/unit/replica", "tests/unit/service"],
    "state": ["tests/unit/state", "tests/unit/replica/test_group.py", "tests/unit/service"],
    "service": ["tests/unit/service"],
    "server/peers": [
        "tests/fuzz/test_peer_frames.py",
        "tests/integration/test_peer_transport.py",
        "tests/unit/server",
    ],
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the ``occurrence``-th place in a file where an operator can be applied.

    ``root`` is the package ``kvstore`` as it is, which ``where`` is below.
    """

    root: Path
    where: str
    operator: str
    occurrence: int

    @property
    def original(self) -> str:
        """The whole file as it is."""
        return (self.root / self.where).read_text()

    @property
    def changed(self) -> str:
        """The whole file with it."""
        code = mutate_code(self.original, get_operator(self.operator)(), self.occurrence)
        assert code is not None, self
        return str(code)

    @property
    def difference(self) -> list[str]:
        """The lines that it takes out and puts in."""
        lines = difflib.unified_diff(
            self.original.splitlines(), self.changed.splitlines(), lineterm="", n=0
        )
        return [line for line in lines if line[:3] not in ("---", "+++") and line[:2] != "@@"]


def mutants(root: Path, package: str) -> Iterator[Mutant]:
    """Every mutant of ``package`` below ``root``."""
    for file in sorted((root / package).rglob("*.py")):
        nodes = list(ast_nodes(get_ast(file.read_text())))
        for name in sorted(operator_names()):
            operator = get_operator(name)
            if operator.arguments() or name.endswith("NoOp"):
                continue
            made = operator()
            places = sum(1 for node in nodes for _ in made.mutation_positions(node))
            where = file.relative_to(root).as_posix()
            yield from (Mutant(root, where, name, number) for number in range(places))


class _WithoutAnnotations(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        node.annotation = ast.Constant(None)
        self.generic_visit(node)
        return node


def changes_code(mutant: Mutant) -> bool:
    """Whether it is a program, and changes more than annotations, which nobody looks at."""
    try:
        after = ast.parse(mutant.changed)
    except SyntaxError:
        return False  # a star in a list of parameters is no multiplication
    before = ast.parse(mutant.original)
    strip = _WithoutAnnotations()
    return ast.dump(strip.visit(before)) != ast.dump(strip.visit(after))


def is_equal(mutant: Mutant) -> bool:
    """Whether ``equal.txt`` says that it changes nothing: file and lines stand there."""
    return "\n".join([mutant.where, *mutant.difference]) in EQUAL.read_text()


def interval(killed: int, tried: int) -> tuple[float, float]:
    """Between which shares that of all mutants lies, of which so many were tried (Wilson, 95 %)."""
    if not tried:
        return 0.0, 1.0
    z = 1.96
    share = killed / tried
    middle = share + z * z / (2 * tried)
    width = z * math.sqrt(share * (1 - share) / tried + z * z / (4 * tried * tried))
    scale = 1 + z * z / tried
    return (middle - width) / scale, (middle + width) / scale


class Copy:
    """A copy of the source for one mutant at a time."""

    def __init__(self, directory: Path) -> None:
        self.source = directory / "src" / "kvstore"
        shutil.copytree(SOURCE, self.source, ignore=shutil.ignore_patterns("__pycache__", *BUILT))
        for name in BUILT:
            (self.source / name).symlink_to(SOURCE / name, target_is_directory=True)

    def run(self, tests: list[str], timeout_s: float | None) -> bool:
        """Whether the tests pass."""
        environment = {**os.environ, "PYTHONPATH": str(self.source.parent), "PYTHONHASHSEED": "0"}
        try:
            ran = subprocess.run(
                [
                    sys.executable,
                    "-B",
                    "-m",
                    "pytest",
                    "-q",
                    "-x",
                    "-p",
                    "no:cacheprovider",
                    *tests,
                ],
                cwd=ROOT,
                env=environment,
                check=False,
                capture_output=True,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            return False
        return ran.returncode == 0

    def sees(self, mutant: Mutant, tests: list[str], timeout_s: float) -> bool:
        """Whether a test fails with ``mutant``."""
        file = self.source / mutant.where
        file.write_text(mutant.changed)
        try:
            return not self.run(tests, timeout_s)
        finally:
            file.write_text(mutant.original)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--package", type=click.Choice(list(TESTS)), default="raft", show_default=True)
@click.option("--sample", type=click.IntRange(0), default=200, show_default=True, help="0: all.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the sample.")
@click.option("--minutes", type=float, default=1e6, help="Begin no other mutant after so long.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1)
def main(package: str, sample: int, seed: int, minutes: float, jobs: int) -> None:
    assert Path(kvstore.__file__).parent == SOURCE
    tests = TESTS[package]
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="kvstore-mutants-") as name:
        # The checkout may change meanwhile.
        root = Copy(Path(name) / "original").source
        everything = list(mutants(root, package))
        random.Random(seed).shuffle(everything)
        chosen = list(itertools.islice(filter(changes_code, everything), sample or None))
        copies: queue.Queue[Copy] = queue.Queue()
        for number in range(jobs):
            copies.put(Copy(Path(name) / str(number)))
        first = copies.get()
        began = time.monotonic()
        if not first.run(tests, None):
            raise click.ClickException("the tests fail as it is")
        timeout_s = SLOWNESS_MAX * (time.monotonic() - began) + 10
        copies.put(first)

        def try_out(mutant: Mutant) -> bool | None:
            if time.monotonic() > end:
                return None
            copy = copies.get()
            try:
                return copy.sees(mutant, tests, timeout_s)
            finally:
                copies.put(copy)

        counts = {"killed": 0, "equal": 0, "survived": 0}
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for mutant, seen in zip(chosen, pool.map(try_out, chosen), strict=True):
                if seen is None:
                    continue
                click.echo(".", nl=False, err=True)
                what = "killed" if seen else "equal" if is_equal(mutant) else "survived"
                counts[what] += 1
                if what == "survived":
                    click.echo("\n".join(["", mutant.where, *mutant.difference]))
    tried = sum(counts.values())
    changing = tried - counts["equal"]
    low, high = interval(counts["killed"], changing)
    click.echo(
        f"\n{package}: {len(everything)} mutants, {tried} tried (seed {seed}): "
        f"{counts['killed']} killed, {counts['equal']} change nothing, "
        f"{counts['survived']} survived; of those that change something "
        f"{counts['killed'] / max(1, changing):.0%} were killed ({low:.0%} to {high:.0%} of all)"
    )
    sys.exit(counts["survived"] > 0)


if __name__ == "__main__":
    main()
