"""The engine is built and tested on each CPython that it is for, where this machine has it.

The one that runs this runs all other tests; of the others each gets an environment of its own, a
wheel built (without optimising: it is to be quick) from the source distribution, and the engine's
quick tests. All are prepared at the same time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tools.interpreters import VERSIONS, interpreter

ROOT = Path(__file__).resolve().parents[2]
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


def unpacked_sdist(into: Path) -> Path:
    """The source distribution's files, and what Cython generated of them."""
    program = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    quietly(sys.executable, "-c", program, into)
    (sdist,) = into.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(into, filter="data")
    sources = into / sdist.name.removesuffix(".tar.gz")
    # The same for all interpreters: so it isn't generated again for each.
    for made in (ROOT / "src").rglob("*.cpp"):
        shutil.copy(made, sources / made.relative_to(ROOT))
    return sources


def prepared(base: str, into: Path) -> Path:
    """An environment of this interpreter with the wheel of the sdist in it; its python."""
    into.mkdir()
    sources = unpacked_sdist(into)
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
