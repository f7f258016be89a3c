"""One planted bug: a patch, a copy of the package with it, and the test that must fail there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PATCHES", "Hunt", "Planted", "hunt", "plant", "planted"]

ROOT = Path(__file__).parents[2]
PATCHES = Path(__file__).parent / "patches"
SCRATCH = ROOT / "build/engine_planted"
"""Copies lie at paths that stay the same, so that a compiler cache knows them again."""
BUILD_FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")
TEST_SECONDS_MAX = 300
"""A test that hangs on the patched engine has found the bug."""

_PATCHED = re.compile(r"^\+\+\+ b/src/kvstore/_engine/(\w+)/", re.MULTILINE)
_FOUND_BY = re.compile(r"^Found by: (.+)$", re.MULTILINE)
_REBUILD = re.compile(r"^Rebuild: (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Planted:
    """What a patch says of itself. ``rooms`` are built anew; ``tests`` are pytest's arguments."""

    name: str
    patch: Path
    what: str
    tests: tuple[str, ...]
    rooms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hunt:
    """What became of a planted bug: ``how`` it was found, empty where it wasn't."""

    planted: Planted
    how: str


def planted(patch: Path) -> Planted:
    """Read a patch: words, ``Found by:`` with pytest's arguments, perhaps ``Rebuild:``, the diff.

    ``Rebuild`` names rooms besides the patched one that include what is patched. Raises ValueError
    for a patch that doesn't say what it breaks or which test finds it.
    """
    text = patch.read_text()
    head, _, _ = text.partition("--- a/")
    found_by = _FOUND_BY.search(head)
    rooms = sorted({*_PATCHED.findall(text), *" ".join(_REBUILD.findall(head)).split()})
    what = " ".join(_REBUILD.sub("", _FOUND_BY.sub("", head)).split())
    if not what or found_by is None or not rooms:
        raise ValueError(f"{patch.name} must say what it breaks and 'Found by: TEST'")
    return Planted(patch.stem, patch, what, tuple(found_by[1].split()), tuple(rooms))


def plant(bug: Planted, directory: Path) -> None:
    """Make ``directory`` a copy of the built package and its build files, patched, not built.

    Raises subprocess.CalledProcessError when the patch doesn't fit.
    """
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(
        ROOT / "src/kvstore",
        directory / "src/kvstore",
        ignore=shutil.ignore_patterns("__pycache__", "*.cpp"),
    )
    for name in BUILD_FILES:
        shutil.copy2(ROOT / name, directory / name)
    subprocess.run(
        ["git", "apply", "-p1", str(bug.patch.resolve())],
        cwd=directory,
        # The checkout further up must not be taken for what is to be patched.
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(directory.parent)},
        check=True,
        capture_output=True,
        text=True,
    )


def build(bug: Planted, directory: Path) -> None:
    """Build the rooms of a planted copy, without optimisation. Raises CalledProcessError."""
    if not bug.rooms:
        return
    for room in bug.rooms:
        for built in (directory / "src/kvstore/_engine" / room).glob("native.*.so"):
            built.unlink()
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=directory,
        env={**os.environ, "KVSTORE_ROOMS": " ".join(bug.rooms), "KVSTORE_OPTIMIZE": "-O0"},
        check=True,
        capture_output=True,
        text=True,
    )


def hunt(bug: Planted, *, keep: bool = False) -> Hunt:
    """Plant, build and run the tests that must fail.

    Raises subprocess.CalledProcessError when the copy can't be built or no test ran.
    """
    directory = SCRATCH / bug.name
    try:
        plant(bug, directory)
        build(bug, directory)
        return Hunt(bug, _run(bug, directory))
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


def _run(bug: Planted, directory: Path) -> str:
    """Why the tests fail against the copy in ``directory``; empty where they pass."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "tests.engine_planted.unshrunk"]
    command = [sys.executable, "-m", "pytest", *options, *bug.tests]
    try:
        ran = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(directory / "src")},
            check=False,
            capture_output=True,
            text=True,
            timeout=TEST_SECONDS_MAX,
        )
    except subprocess.TimeoutExpired:
        return "hangs"
    if ran.returncode < 0:
        return f"ended by signal {-ran.returncode}"
    if ran.returncode == 1:
        failed = [line for line in ran.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return failed[0] if failed else "failed"
    if ran.returncode:
        # Collected nothing, or the copy can't be imported: that proves nothing.
        raise subprocess.CalledProcessError(ran.returncode, command, ran.stdout, ran.stderr)
    return ""
