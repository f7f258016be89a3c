"""The engine is built and tested on each CPython that it is for, where this machine has it.

The one that runs this runs all other tests; of the others each gets an environment of its own, a
wheel built (without optimising: it is to be quick) from a copy of the sources, and the engine's
quick tests. All are prepared at the same time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ["3.11", "3.12", "3.13", "3.14"]
OTHERS = [
    version for version in VERSIONS if version != f"{sys.version_info[0]}.{sys.version_info[1]}"
]

NEEDS = ["setuptools>=77", "Cython>=3.1", "pytest>=8", "pytest-timeout>=2.3", "hypothesis>=6.100"]
NEEDS += ["numpy>=1.26", "lz4>=4.3", "zstandard>=0.22", "cramjam>=2.8"]

# Each module of the engine, its faces for Python, and what depends on an interpreter's workings:
# forks, threads, the end, references, hashes. Not the sweeps and the models.
QUICK = [
    "tests/unit/compat",
    *(
        f"tests/unit/engine/test_{name}.py"
        for name in (
            *("block", "block_cache", "compression", "crc32c", "file", "filter", "memtable"),
            *("manifest", "log", "table", "paths", "memory_disk", "bad_directory"),
            *("database_basics", "iterator_reads", "many_versions", "bulk", "lifecycle"),
            *("extension_types", "plyvel_parity"),
        )
    ),
]

# Has headers to build with, is no free-threaded build, and is the version that its name says.
PROBE = """
import os, sys, sysconfig
assert f"{sys.version_info[0]}.{sys.version_info[1]}" == sys.argv[1]
assert sys.implementation.name == "cpython"
assert not sysconfig.get_config_var("Py_GIL_DISABLED")
assert os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
"""


def output_of(*command: str) -> str:
    """What a command prints, nothing where it isn't there or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def interpreter(version: str) -> str | None:
    """A CPython of this version: of the path, or one of pyenv's."""
    named = shutil.which(f"python{version}")
    found = [] if named is None else [named]
    if root := output_of("pyenv", "root"):
        found += map(str, sorted(Path(root).glob(f"versions/{version}.*/bin/python"), reverse=True))
    for python in found:
        probe = subprocess.run([python, "-c", PROBE, version], capture_output=True, check=False)
        if probe.returncode == 0:
            return python
    return None


def quietly(*command: object, **environment: str) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**clean, "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )
    assert done.returncode == 0, done.stdout[-8000:]


def prepared(base: str, into: Path) -> Path:
    """An environment of this interpreter with the wheel in it; its python."""
    sources = into / "sources"
    into.mkdir()
    # With what Cython generated, which is the same for all: so it isn't generated again.
    shutil.copytree(
        ROOT / "src", sources / "src", ignore=shutil.ignore_patterns("*.so", "*.egg-info")
    )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, sources / name)
    compiler = into / "compiler"
    compiler.write_text('#!/bin/sh\nexec c++ "$@" -O0 -g0\n')
    compiler.chmod(0o755)
    quietly(base, "-m", "venv", into / "venv")
    python = into / "venv/bin/python"
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    quietly(*pip, "install", "--only-binary=:all:", *NEEDS)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", into / "wheel"]
    quietly(*pip, *build, sources, CC=str(compiler), CXX=str(compiler))
    (wheel,) = (into / "wheel").glob("kvstore_raft-*.whl")
    # The engine needs none of what the server does.
    quietly(*pip, "install", "--no-deps", wheel)
    return python


class Environments:
    """Prepares all environments at once when it is first asked for one.

    But each worker of xdist only those that it is asked for.
    """

    def __init__(self, pool: ThreadPoolExecutor, into: Path) -> None:
        self.pool = pool
        self.into = into
        self.under_way: dict[str, Future[Path]] = {}

    def python(self, version: str) -> Path:
        for other in [version] if "PYTEST_XDIST_WORKER" in os.environ else OTHERS:
            if other not in self.under_way and (base := interpreter(other)) is not None:
                self.under_way[other] = self.pool.submit(prepared, base, self.into / other)
        return self.under_way[version].result()


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environments]:
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        yield Environments(pool, tmp_path_factory.mktemp("interpreters"))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("version", OTHERS)
def test_the_engine_is_built_and_works(
    environments: Environments, version: str, tmp_path: Path
) -> None:
    if interpreter(version) is None:
        pytest.skip(f"this machine has no CPython {version} with its headers")
    python = environments.python(version)
    quietly(
        *(python, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "-o", "addopts="),
        *(f"--rootdir={ROOT}", f"--basetemp={tmp_path / 'tests'}", *QUICK),
    )
